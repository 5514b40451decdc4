/**
 * `GET /socket`: lets connections in, keeps the list of them, looks at each twice a second, and
 * ends them all when the server stops. What a connection does is in `session.ts`.
 */
import type { Server, WebSocketHandler } from "bun";
import { errorText } from "../errors.ts";
import {
  admissionsMax,
  limitedRetryMs,
  nameSweepMs,
  socketBufferBytesMax,
  socketsMax,
  socketsUnknownMax,
  socketTickMs,
  spreadMsMax,
  spreadMsMin,
  spreadOfSocketMs,
} from "../limits.ts";
import { Admission, spreadMs } from "./admission.ts";
import { bearerToken, type Credential, ticketIn } from "./auth.ts";
import type { ConnectionCounts } from "./client-limits.ts";
import { clientMetrics, SocketTally } from "./client-metrics.ts";
import { CLOSE, closeReason, SUBPROTOCOL } from "./frames.ts";
import { DurableNames } from "./names.ts";
import { problemResponse } from "./problem.ts";
import type { HttpContext } from "./services.ts";
import { type SessionStart, type SessionTools, SocketSession } from "./session.ts";

/** What Bun keeps with each connection. */
export interface SocketData {
  /** Until it is open. */
  start: SessionStart | null;
  session: SocketSession | null;
}

const BEARER_PREFIX = "bearer.";
const TICKET_PREFIX = "ticket.";
/** Bun pings connections by itself and ends those that are silent for so long. Seconds. */
const SILENT_S = 120;

/** All sockets of a server. */
export class SocketHub {
  readonly #context: HttpContext;
  readonly #names: DurableNames;
  readonly #tools: SessionTools;
  readonly #tally = new SocketTally();
  /** Sockets that have not said who they are, as of the last look. */
  #unknown = 0;
  readonly #sessions = new Set<SocketSession>();
  readonly #endings = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  readonly #ticking: Promise<void>;
  readonly #sweeping: Promise<void>;

  constructor(context: HttpContext) {
    this.#context = context;
    this.#names = new DurableNames(context.gateway.states, context.clock);
    this.#tools = {
      context,
      names: this.#names,
      admission: new Admission(admissionsMax),
      spreadMs: () => this.#spreadMs(),
    };
    const { telemetry } = context;
    for (const metric of clientMetrics(telemetry, this.#tally, () => this.#sessions)) {
      telemetry.register(metric);
    }
    this.#ticking = this.#tick();
    this.#sweeping = this.#sweep();
  }

  /** Bun's handlers. */
  handlers(): WebSocketHandler<SocketData> {
    const { logger } = this.#context.telemetry;
    return {
      maxPayloadLength: this.#context.clients.limits.frameBytes,
      backpressureLimit: socketBufferBytesMax,
      idleTimeout: SILENT_S,
      sendPings: true,
      perMessageDeflate: false,
      open: (socket) => {
        const { start } = socket.data;
        if (start === null) return;
        const session = new SocketSession(socket, this.#tools, start);
        socket.data.session = session;
        socket.data.start = null;
        this.#unknown++;
        this.#tally.opened++;
        this.#sessions.add(session);
        this.#context.telemetry.socketClients = this.#sessions.size;
        if (this.#stop.signal.aborted) this.#restart(session);
      },
      message: (socket, data) => socket.data.session?.received(data),
      drain: (socket) => socket.data.session?.drained(),
      close: (socket, code) => {
        this.#tally.close(code);
        this.#closed(socket.data.session);
      },
      error: (error) => logger.error({ err: error }, errorText(error)),
    };
  }

  /** Makes a connection of a request; undefined once it is one. */
  upgrade(request: Request, server: Server<SocketData>): Response | undefined {
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      const detail = `open it as a WebSocket, subprotocol ${SUBPROTOCOL}`;
      const headers = { upgrade: "websocket", connection: "upgrade" };
      return problemResponse({ status: 426, code: "upgrade-required", detail, headers });
    }
    const unknown = this.#unknown;
    const isFull = this.#sessions.size >= socketsMax || unknown >= socketsUnknownMax;
    if (isFull || this.#stop.signal.aborted) {
      this.#tally.refused.full++;
      const retryS = Math.ceil((limitedRetryMs + this.#context.random() * this.#spreadMs()) / 1000);
      return problemResponse({
        status: 503,
        code: "rate-limited",
        detail: "no more sockets can be opened now",
        headers: { "retry-after": String(retryS) },
      });
    }
    return this.#enter(request, server);
  }

  #enter(request: Request, server: Server<SocketData>): Response | undefined {
    const { proxies } = this.#context;
    const peer = server.requestIP(request)?.address ?? null;
    const { address } = proxies.caller(request.headers, peer);
    const offered = (request.headers.get("sec-websocket-protocol") ?? "")
      .split(",")
      .map((each) => each.trim());
    const headers = offered.includes(SUBPROTOCOL) ? { "sec-websocket-protocol": SUBPROTOCOL } : {};
    const counts = this.#counted(address);
    const credential = credentialOf(request, offered);
    const data = { start: { credential, counts }, session: null };
    if (server.upgrade(request, { data, headers })) return undefined;
    counts.leave();
    return problemResponse({ status: 400, code: "invalid", detail: "the upgrade is not valid" });
  }

  #counted(address: string | null): ConnectionCounts {
    try {
      return this.#context.clients.enter(address);
    } catch (error) {
      this.#tally.refused.address++;
      throw error;
    }
  }

  /** How the connections stand. */
  list(): readonly object[] {
    return [...this.#sessions].map((session) => session.describe());
  }

  /** Closes all with 1012, each told when to come back, and waits until their acks are on disk. */
  async stop(): Promise<void> {
    this.#stop.abort();
    const all = [...this.#sessions];
    for (const session of all) this.#restart(session);
    await Promise.all(all.map((session) => session.closed()));
    await Promise.all(this.#endings);
    await this.#ticking;
    await this.#sweeping;
  }

  #restart(session: SocketSession): void {
    const retryMs = this.#context.random() * this.#spreadMs();
    session.close(CLOSE.restart, closeReason("restart", retryMs));
  }

  #spreadMs(): number {
    return spreadMs(this.#sessions.size, {
      eachMs: spreadOfSocketMs,
      minMs: spreadMsMin,
      maxMs: spreadMsMax,
    });
  }

  #closed(session: SocketSession | null): void {
    if (session === null || !this.#sessions.delete(session)) return;
    this.#context.telemetry.socketClients = this.#sessions.size;
    const { logger } = this.#context.telemetry;
    const ending: Promise<void> = session
      .closed()
      .catch((error: unknown) => logger.error({ err: error }, errorText(error)))
      .finally(() => this.#endings.delete(ending));
    this.#endings.add(ending);
  }

  async #tick(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#context.clock.sleep(socketTickMs, signal);
      let unknown = 0;
      for (const session of this.#sessions) {
        this.#look(session);
        if (!session.isKnown) unknown++;
      }
      this.#unknown = unknown;
      this.#context.callers.look();
    }
  }

  /** Forgets clients that are idle, and names that nobody has used for a month. */
  async #sweep(): Promise<void> {
    const { clock, clients, telemetry } = this.#context;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await clock.sleep(nameSweepMs, signal);
      if (signal.aborted) return;
      clients.sweep();
      try {
        const count = await this.#names.sweep();
        if (count > 0) telemetry.logger.info(`${count} unused durable names have expired`);
      } catch (error) {
        // Nothing is lost by names that stay: they are looked at again with the next sweep.
        telemetry.logger.warn({ err: error }, `unused names stay: ${errorText(error)}`);
      }
    }
  }

  /** One connection that can't be looked at must not keep the others from it. */
  #look(session: SocketSession): void {
    try {
      session.tick();
    } catch (error) {
      this.#context.telemetry.logger.error({ err: error, session: session.id }, errorText(error));
      session.close(CLOSE.failed, "an unexpected failure");
    }
  }
}

/** What the upgrade shows: a subprotocol, a header, or a ticket in the address. */
function credentialOf(request: Request, offered: readonly string[]): Credential {
  const after = (prefix: string): string | null => {
    const found = offered.find((each) => each.startsWith(prefix));
    return found === undefined ? null : found.slice(prefix.length);
  };
  const token = after(BEARER_PREFIX) ?? bearerToken(request.headers.get("authorization"));
  if (token !== null) return { token };
  const ticket = after(TICKET_PREFIX) ?? ticketIn(request.url);
  return ticket === null ? null : { ticket };
}
