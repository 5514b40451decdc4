/**
 * `isthmus tail`: prints messages as they come, over the socket. A lost connection is made again
 * and goes on from the last cursor printed, so that no message is missing and none comes twice.
 * It ends when it is interrupted (0), or when the gateway says that it never will work (1).
 */
import type { Command } from "commander";
import { backoffMs } from "../backoff.ts";
import { systemClock } from "../clock.ts";
import { parseTimeMs } from "../rules/units.ts";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import type { MessageJson } from "./message.ts";
import { Output } from "./output.ts";
import { type Gap, gapText, printMessage } from "./read.ts";
import { type Closed, type Frame, FrameSocket, isClosed } from "./socket.ts";

/** Waits before a lost connection is made again. Milliseconds. */
const reconnect = { delayMinMs: 250, delayMaxMs: 10_000 };
/** After a restart of the gateway its clients spread over this time. Milliseconds. */
const restart = { delayMinMs: 1000, delayMaxMs: 1000 };

/** Error codes that pass by themselves: everything else will be the same the next time. */
const passing: ReadonlySet<unknown> = new Set([
  "storage-unavailable",
  "database-unavailable",
  "rate-limited",
]);

interface Flags extends ConnectionFlags {
  readonly from: string;
  readonly where?: string;
  readonly key?: string;
}

export function registerTail(program: Command): void {
  const command = program
    .command("tail")
    .summary("print a stream's messages as they come")
    .description(
      "Print a stream's messages as they come, until Ctrl-C: PARTITION/OFFSET, time, key and body, " +
        "separated by tabs. A lost connection is made again and goes on where it was. " +
        "A place is earliest, latest, a time (2026-01-31T12:00:00Z), 1h ago, or a cursor.",
    )
    .argument("<stream>", "the stream")
    .option("--from <place>", "where to begin", "latest")
    .option("--key <key>", "only messages of this key")
    .option("--where <cel>", "only messages for which this CEL expression is true")
    .addHelpText(
      "after",
      `
Examples:
  isthmus tail orders
  isthmus tail orders --from "10m ago" --where 'body.amount > 100' --json`,
    );
  withConnection(command).action(async (stream: string, flags: Flags) => {
    await tail(stream, flags);
  });
}

async function tail(stream: string, flags: Flags): Promise<void> {
  const client = await connect(flags);
  const token = await tokenOf(client);
  const signal = interrupted();
  const output = new Output(flags);
  const subscription = new Tail({ client, token, output, stream, flags, signal }, (message) =>
    printMessage(output, message),
  );
  await subscription.run();
  const { cursor } = subscription;
  if (output.terminal && cursor !== null) {
    await output.note(`to go on from here: isthmus tail ${stream} --from ${cursor}`);
  }
}

/** The token, for a socket needs one. @throws CliError there is none */
export async function tokenOf(client: Client): Promise<string> {
  const { token, tokenMissing } = client.connection;
  if (token !== null) return token;
  // Nobody listening is the better explanation, where it is one.
  await client.call({ path: "/health/live" });
  throw new CliError(`no token: ${tokenMissing}; give one with --token or ISTHMUS_TOKEN`);
}

/** Aborted when the command is interrupted. */
export function interrupted(): AbortSignal {
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, () => interrupt.abort());
  }
  return interrupt.signal;
}

/** What is subscribed to, and by whom. */
export interface TailOptions {
  readonly client: Client;
  readonly token: string;
  readonly output: Output;
  readonly stream: string;
  readonly flags: Pick<Flags, "from" | "where" | "key">;
  readonly signal: AbortSignal;
  /** Called once, when messages from here on are sure to come. */
  readonly begun?: () => Promise<void>;
}

/** One subscription over as many connections as it takes; messages are taken one after another. */
export class Tail {
  readonly #options: TailOptions;
  readonly #taken: (message: MessageJson) => Promise<void>;
  /** The place after the last message printed; null before the first answer. */
  #cursor: string | null = null;
  /** Connections lost since messages last came. */
  #failures = 0;
  #begun = false;

  constructor(options: TailOptions, taken: (message: MessageJson) => Promise<void>) {
    this.#options = options;
    this.#taken = taken;
  }

  get cursor(): string | null {
    return this.#cursor;
  }

  /** Goes on until the signal. @throws CliError it never will work */
  async run(): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      const closed = await this.#follow();
      if (closed !== null) await this.#recover(closed);
    }
  }

  /** One connection, to its end; null when it was interrupted. */
  async #follow(): Promise<Closed | null> {
    const { client, signal, token } = this.#options;
    const socket = new FrameSocket(client.connection.url);
    const stop = (): void => socket.close();
    signal.addEventListener("abort", stop, { once: true });
    try {
      socket.send({ op: "auth", token });
      socket.send(this.#subscribeFrame());
      for (;;) {
        const next = await socket.next();
        if (signal.aborted) return null;
        if (isClosed(next)) return next;
        await this.#take(next);
        if (next.op === "error")
          return { opened: true, behind: false, code: 1006, reason: errorOf(next) };
      }
    } finally {
      signal.removeEventListener("abort", stop);
      socket.close();
    }
  }

  #subscribeFrame(): Frame {
    const { stream, flags } = this.#options;
    const { where, key } = flags;
    return {
      op: "subscribe",
      sub: "tail",
      stream,
      from: this.#cursor ?? placeOf(flags.from),
      ...(key === undefined ? {} : { key }),
      ...(where === undefined ? {} : { where }),
    };
  }

  async #take(frame: Frame): Promise<void> {
    const { output, stream } = this.#options;
    switch (frame.op) {
      case "subscribed":
        if (this.#failures > 0) await output.note("connected again");
        if (isGap(frame["gap"])) await output.note(gapText(stream, frame["gap"]));
        await this.#begin();
        break;
      case "message": {
        const { op: _op, sub: _sub, ...message } = frame;
        await this.#taken(message as MessageJson);
        break;
      }
      case "error":
        if (!passing.has(frame["code"])) throw new CliError(errorOf(frame));
        break;
      default:
        break;
    }
    if (typeof frame["cursor"] !== "string") return;
    this.#cursor = frame["cursor"];
    this.#failures = 0;
  }

  async #begin(): Promise<void> {
    if (this.#begun) return;
    this.#begun = true;
    await this.#options.begun?.();
  }

  /** Waits until the connection should be made again. @throws CliError it should not */
  async #recover(closed: Closed): Promise<void> {
    if (closed.behind) return;
    const { client, output, signal } = this.#options;
    const refusal = refusalOf(closed);
    if (refusal !== null) throw new CliError(refusal);
    if (this.#cursor === null && !closed.opened) {
      // Nothing has worked yet: an HTTP call tells why better than a socket that didn't open.
      await client.call({ path: "/health/live" });
      throw new CliError(`${client.connection.url} answers, but its socket can't be opened`);
    }
    this.#failures += 1;
    if (this.#failures === 1) {
      const reason = closed.reason === "" ? "" : ` (${closed.reason})`;
      await output.note(`connection lost${reason}: trying again`);
    }
    const bounds = closed.code === 1012 ? restart : reconnect;
    await systemClock.sleep(backoffMs(this.#failures, bounds, randomFraction), signal);
  }
}

/** Why a connection must not be made again, by its close code; null when it may. */
function refusalOf({ code, reason }: Closed): string | null {
  if (code === 4401) return "the token has expired";
  if (code < 4500 || code > 4999) return null;
  if (reason !== "") return reason;
  if (code === 4501) return "the token is wrong or was revoked";
  if (code === 4503) return "the token does not allow this";
  return `the gateway closed the connection for good (${code})`;
}

function errorOf(frame: Frame): string {
  const { code, message } = frame;
  return typeof message === "string" ? message : `the gateway refused: ${String(code)}`;
}

function isGap(value: unknown): value is Gap {
  return typeof value === "object" && value !== null;
}

/** A place as the socket takes it: times are an object, everything else is text. */
function placeOf(place: string): unknown {
  const timeMs = parseTimeMs(place, Date.now());
  return timeMs === null ? place : { time: timeMs };
}

function randomFraction(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32;
}
