/** What a route is made from: its partition, its revisions, and whom it tells. */
import type { Capabilities, Loss, Outgoing, Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import type { Offset, Partition, States } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { RuleDocument } from "../rules/document.ts";
import type { CompiledRule, CompiledTarget } from "../rules/transform.ts";
import type { DeadLetterCause } from "./deadletter.ts";
import type { Trail } from "./hops.ts";
import type { RouteNotes } from "./journey-log.ts";
import type { Gate } from "./gate.ts";
import type { Finish, Progress } from "./progress.ts";

/** One revision of a route, ready to run. */
export interface RunningRevision {
  readonly revision: number;
  readonly enabled: boolean;
  readonly rule: CompiledRule;
  readonly target: CompiledTarget;
  /** `lanes`: the sink keeps the order of each lane by itself, whatever fails. */
  readonly failure: Capabilities["failure"] | "lanes";
  readonly order: RuleDocument["order"];
  readonly onFailure: RuleDocument["onFailure"];
  /** What looks after loops of its messages; null: nothing does. */
  readonly trail: Trail | null;
  /** What a message loses at the target. Cheap: asked for each message. */
  readonly lossesOf: (outgoing: Outgoing) => readonly Loss[];
  /** Opens the target; waits while it is away; null when aborted. */
  readonly openSink: (signal: AbortSignal) => Promise<Sink | null>;
}

/** What a route tells about each message, for the counters. */
export interface RouteEvents {
  readonly onFinished: (how: Finish) => void;
  readonly onRetry: () => void;
  /** A message was sent without something of it. */
  readonly onLost: (losses: readonly Loss[]) => void;
  readonly onGap: (gap: { from: Offset; to: Offset; reason: string }) => void;
  readonly warn: (sentence: string) => void;
}

/** What a route is made from. */
export interface RouteParts {
  readonly ruleName: string;
  readonly targetName: string;
  readonly partition: Partition;
  /** The stream of the messages of this route that wait: its only partition. */
  readonly waiting: Partition;
  /** The name of its state record. */
  readonly stateKey: string;
  readonly progress: Progress;
  /** A revision that it has, or had, work for; null when it did not have the target. */
  readonly revision: (revision: number) => RunningRevision | null;
  readonly states: States;
  /** What every call to the target passes. */
  readonly gate: Gate;
  /** Takes notes of what becomes of each message; null: none are taken. */
  readonly journey: RouteNotes | null;
  /**
   * Keeps a dead letter; resolves with its place when it is durable. `dedupeKey` makes it happen
   * once.
   */
  readonly bury: (
    message: StoredMessage,
    cause: DeadLetterCause,
    dedupeKey: string,
  ) => Promise<string>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly events: RouteEvents;
}
