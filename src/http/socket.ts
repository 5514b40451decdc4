/**
 * `GET /socket`: lets connections in, keeps the list of them, looks at each twice a second, and
 * ends them all when the server stops. What a connection does is in `session.ts`.
 */
import type { Server, WebSocketHandler } from "bun";
import { errorText } from "../errors.ts";
import { socketBufferBytesMax, socketFrameBytesMax, socketsMax, socketTickMs } from "../limits.ts";
import { bearerToken } from "./auth.ts";
import { CLOSE, SUBPROTOCOL } from "./frames.ts";
import { DurableNames } from "./names.ts";
import { problemResponse } from "./problem.ts";
import type { HttpServices } from "./services.ts";
import { SocketSession } from "./session.ts";

/** What Bun keeps with each connection. */
export interface SocketData {
  readonly token: string | null;
  session: SocketSession | null;
}

const BEARER_PREFIX = "bearer.";
/** Bun pings connections by itself and ends those that are silent for so long. Seconds. */
const SILENT_S = 120;

/** All sockets of a server. */
export class SocketHub {
  readonly #services: HttpServices;
  readonly #names: DurableNames;
  readonly #sessions = new Set<SocketSession>();
  readonly #endings = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  readonly #ticking: Promise<void>;

  constructor(services: HttpServices) {
    this.#services = services;
    this.#names = new DurableNames(services.gateway.states, services.clock);
    this.#ticking = this.#tick();
  }

  /** Bun's handlers. */
  handlers(): WebSocketHandler<SocketData> {
    const { logger } = this.#services.telemetry;
    return {
      maxPayloadLength: socketFrameBytesMax,
      backpressureLimit: socketBufferBytesMax,
      idleTimeout: SILENT_S,
      sendPings: true,
      perMessageDeflate: false,
      open: (socket) => {
        const session = new SocketSession(socket, {
          services: this.#services,
          names: this.#names,
          token: socket.data.token,
        });
        socket.data.session = session;
        this.#sessions.add(session);
        this.#services.telemetry.socketClients = this.#sessions.size;
        if (this.#stop.signal.aborted) session.close(CLOSE.restart, "restart");
      },
      message: (socket, data) => socket.data.session?.received(data),
      drain: (socket) => socket.data.session?.drained(),
      close: (socket) => this.#closed(socket.data.session),
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
    if (this.#sessions.size >= socketsMax || this.#stop.signal.aborted) {
      const detail = "no more sockets can be opened now";
      return problemResponse({
        status: 503,
        code: "rate-limited",
        detail,
        headers: { "retry-after": "5" },
      });
    }
    const offered = (request.headers.get("sec-websocket-protocol") ?? "")
      .split(",")
      .map((each) => each.trim());
    const bearer = offered.find((each) => each.startsWith(BEARER_PREFIX));
    const token =
      bearer === undefined
        ? bearerToken(request.headers.get("authorization"))
        : bearer.slice(BEARER_PREFIX.length);
    const headers = offered.includes(SUBPROTOCOL) ? { "sec-websocket-protocol": SUBPROTOCOL } : {};
    if (server.upgrade(request, { data: { token, session: null }, headers })) return undefined;
    return problemResponse({ status: 400, code: "invalid", detail: "the upgrade is not valid" });
  }

  /** How the connections stand. */
  list(): readonly object[] {
    return [...this.#sessions].map((session) => session.describe());
  }

  /** Closes all with 1012 and waits until what they acked is on disk. */
  async stop(): Promise<void> {
    this.#stop.abort();
    const all = [...this.#sessions];
    for (const session of all) session.close(CLOSE.restart, "restart");
    await Promise.all(all.map((session) => session.closed()));
    await Promise.all(this.#endings);
    await this.#ticking;
  }

  #closed(session: SocketSession | null): void {
    if (session === null || !this.#sessions.delete(session)) return;
    this.#services.telemetry.socketClients = this.#sessions.size;
    const { logger } = this.#services.telemetry;
    const ending: Promise<void> = session
      .closed()
      .catch((error: unknown) => logger.error({ err: error }, errorText(error)))
      .finally(() => this.#endings.delete(ending));
    this.#endings.add(ending);
  }

  async #tick(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#services.clock.sleep(socketTickMs, signal);
      for (const session of this.#sessions) this.#look(session);
    }
  }

  /** One connection that can't be looked at must not keep the others from it. */
  #look(session: SocketSession): void {
    try {
      session.tick();
    } catch (error) {
      this.#services.telemetry.logger.error({ err: error, session: session.id }, errorText(error));
      session.close(CLOSE.failed, "an unexpected failure");
    }
  }
}
