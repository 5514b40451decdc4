/** Makes the loop of one source from what is planned and what runs. */
import type { BridgeModule } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import type { States } from "../log/log.ts";
import type { Stream, Streams } from "../log/stream.ts";
import type { BridgeConnection } from "./connection.ts";
import { deadLetterStream } from "./deadletter.ts";
import type { PlannedSource } from "./plan.ts";
import { sourcePrepare } from "./source-prepare.ts";
import { SourceRunner, type Turns } from "./source-runner.ts";

/** What every source of a gateway is made with. */
export interface SourceTools {
  readonly streams: Streams;
  readonly states: States;
  readonly modules: ReadonlyMap<string, BridgeModule>;
  /** Null: there is one gateway. */
  readonly nodes: Turns | null;
  readonly events: {
    readonly onTaken: (source: string, messages: number) => void;
    readonly onExpressionFailed: (kind: "source", name: string) => void;
    readonly warn: (sentence: string) => void;
  };
  readonly clock: Clock;
  readonly random: () => number;
}

/** The source, not started, and the stream that it writes. */
export function makeSource(
  { name, document }: PlannedSource,
  connection: BridgeConnection,
  { streams, states, modules, nodes, events, clock, random }: SourceTools,
): { readonly stream: Stream; readonly runner: SourceRunner } {
  const stream = streams.stream(document.stream);
  const { sharedGroups } = connection.module.capabilities;
  const parts = { document, connection, turns: sharedGroups ? null : nodes };
  const runner = new SourceRunner(parts, {
    name,
    identity: `${name} ${JSON.stringify(document.from)}`,
    states,
    stream,
    dead: streams.stream(deadLetterStream(name)),
    prepare: sourcePrepare(document, {
      name,
      events: modules.get(document.from.kind)?.events,
      failed: () => events.onExpressionFailed("source", name),
    }),
    onTaken: (messages) => events.onTaken(name, messages),
    warn: events.warn,
    clock,
    random,
  });
  return { stream, runner };
}
