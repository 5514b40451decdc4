/** What routes know of their targets: how they fail, what is lost at them, and how they are opened. */
import { type Loss, noLosses, type Sink } from "../bridge.ts";
import { DisconnectedError } from "../errors.ts";
import { connectTimeoutMs } from "../limits.ts";
import type { Message } from "../message.ts";
import type { TargetDocument } from "../rules/document.ts";
import type { RunningRevision } from "./route-parts.ts";
import type { RoutesParts } from "./routes.ts";
import { StreamSink } from "./stream-sink.ts";
import { within } from "./within.ts";

/** The targets of a process. */
export class Targets {
  readonly #parts: Pick<RoutesParts, "streams" | "modules" | "connection" | "clock" | "random">;

  constructor(parts: Pick<RoutesParts, "streams" | "modules" | "connection" | "clock" | "random">) {
    this.#parts = parts;
  }

  /** What goes as one fails as one. */
  failureOf({ to, batch }: TargetDocument): RunningRevision["failure"] {
    if ("stream" in to || batch?.as !== undefined) return "prefix";
    const capabilities = this.#parts.modules.get(to.kind)?.capabilities;
    return capabilities?.lanes === true ? "lanes" : (capabilities?.failure ?? "independent");
  }

  lossesOf({ to, batch }: TargetDocument, message: Message): readonly Loss[] {
    if ("stream" in to) return noLosses;
    return this.#parts.connection(to.bridge)?.lossesOf(message, batch?.as ?? null) ?? noLosses;
  }

  /** Opens a target; waits while its bridge is away; null when aborted. `run` is the route's. */
  async open({ to }: TargetDocument, run: string, signal: AbortSignal): Promise<Sink | null> {
    const { streams, random, connection, clock } = this.#parts;
    if ("stream" in to) return new StreamSink(streams, run, random);
    const bridge = await connection(to.bridge)?.acquire(signal);
    if (signal.aborted) return null;
    // Messages of an older revision may outlive its bridge: they wait as in any outage.
    if (bridge === null || bridge === undefined) {
      throw new DisconnectedError(`there is no bridge ${to.bridge}`);
    }
    const { text, fields, fixed } = to;
    const opening = bridge.sink({ text, fields, ...(fixed === undefined ? {} : { fixed }) });
    return within(opening, { clock, ms: connectTimeoutMs, signal });
  }
}

/** The bridge of a target; null: it is a stream. */
export function bridgeOf({ to }: TargetDocument): string | null {
  return "stream" in to ? null : to.bridge;
}
