/** What a route is made from: its partition, its revisions, and whom it tells. */
import type { Capabilities, Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import type { Offset, Partition, States } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { RuleDocument } from "../rules/document.ts";
import type { CompiledRule, CompiledTarget } from "../rules/transform.ts";
import type { DeadLetterCause } from "./deadletter.ts";
import type { Finish, Progress } from "./progress.ts";

/** One revision of a route, ready to run. */
export interface RunningRevision {
  readonly revision: number;
  readonly enabled: boolean;
  readonly rule: CompiledRule;
  readonly target: CompiledTarget;
  readonly failure: Capabilities["failure"];
  readonly order: RuleDocument["order"];
  readonly onFailure: RuleDocument["onFailure"];
  /** Opens the target; waits while it is away; null when aborted. */
  readonly openSink: (signal: AbortSignal) => Promise<Sink | null>;
}

/** What a route tells about each message, for the counters. */
export interface RouteEvents {
  readonly onFinished: (how: Finish) => void;
  readonly onRetry: () => void;
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
  /** Keeps a dead letter; resolves when it is durable. `dedupeKey` makes it happen once. */
  readonly bury: (
    message: StoredMessage,
    cause: DeadLetterCause,
    dedupeKey: string,
  ) => Promise<void>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly events: RouteEvents;
}
