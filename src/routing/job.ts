/**
 * A job that sends again: a window of a stream to a rule's targets (replay), or a rule's dead
 * letters to the routes that failed (redrive). Here is what a job is, its record, and which of the
 * messages that it reads go out; jobs.ts runs them.
 */
import { assert } from "../assert.ts";
import { NotFoundError } from "../errors.ts";
import { decodeText, encodeText, type StoredMessage } from "../message.ts";
import type { SetDocument } from "../rules/document.ts";
import { compileExpression, type Expression } from "../rules/expression.ts";
import { EvaluationError } from "../rules/failure.ts";
import { type Change, compileSet } from "../rules/set.ts";
import type { Rate } from "../rules/units.ts";
import { type AgainKind, againName } from "./again.ts";
import {
  type Letter,
  type LetterMarks,
  letterOf,
  type LetterState,
  placed,
  type Span,
} from "./letters.ts";
import type { Routes, RunningRoute } from "./routes.ts";

/** What is wanted of a job. */
export interface JobWanted {
  readonly kind: AgainKind;
  /** The stream that is read: recorded messages, or dead letters. */
  readonly stream: string;
  readonly rule: string;
  /** Null: all targets; of dead letters, each its own. */
  readonly target: string | null;
  /** CEL over the messages that are read; null: all. */
  readonly where: string | null;
  /** Redrive: text that stands in the reason, in any case; null: any. */
  readonly reason: string | null;
  /** Redrive: a change that is made first; null: as it was. */
  readonly set: SetDocument | null;
  /** Redrive: also those that were sent again or dropped before. */
  readonly again: boolean;
  readonly rate: Rate | null;
}

/** What a job has come to. */
export interface JobCounts {
  read: number;
  /** Handed to routes: they stand among those that wait there. */
  sent: number;
  /** Not asked for: by `where`, the reason, the target, or done before. */
  skipped: number;
  /** The rule's own `where` does not take them. */
  filtered: number;
  /** `set` could not be made of them. */
  failed: number;
}

/** A job as it is kept. */
export interface JobRecord {
  readonly id: string;
  readonly wanted: JobWanted;
  readonly by: string;
  readonly createdAtMs: number;
  spans: readonly Span[];
  state: "running" | "done" | "cancelled" | "failed";
  error: string | null;
  endedAtMs: number | null;
  counts: JobCounts;
}

/** The state record of a job. */
export function encodeJob(job: JobRecord): Uint8Array {
  return encodeText(JSON.stringify(job));
}

/** Reads what `encodeJob` gave. */
export function decodeJob(bytes: Uint8Array): JobRecord {
  return JSON.parse(decodeText(bytes)) as JobRecord;
}

/** The place of a message that was read. */
export interface ReadPlace {
  readonly partition: number;
  readonly offset: number;
}

/** A message on its way to one route. */
export interface Item {
  readonly target: string;
  readonly partition: number;
  readonly message: StoredMessage;
  readonly again: string;
}

/** What becomes of one message that was read. */
export interface Chosen {
  readonly place: ReadPlace;
  readonly items: readonly Item[];
  readonly because: Exclude<keyof JobCounts, "read">;
  /** Why `set` could not be made. */
  readonly error: string | null;
}

/** What choosing works with. */
export interface ChooserParts {
  readonly routes: Routes;
  readonly marks: LetterMarks;
  /** Whether the rules name it: its routes may all the same not run for a moment. */
  readonly isDefined: (rule: string, target: string | null) => boolean;
}

/** Chooses for one job. */
export class Chooser {
  readonly #job: Pick<JobRecord, "id" | "wanted">;
  readonly #parts: ChooserParts;
  readonly #where: Expression | null;
  readonly #change: Change | null;

  /** @throws InvalidError `where` or `set` does not compile. */
  constructor(job: Pick<JobRecord, "id" | "wanted">, parts: ChooserParts) {
    const { where, set, rule } = job.wanted;
    this.#job = job;
    this.#parts = parts;
    this.#where = where === null ? null : compileExpression(where);
    this.#change = set === null ? null : compileSet(set, rule);
  }

  /** @throws NotFoundError the rule or target does not run (now). @throws StorageError */
  async choose(message: StoredMessage): Promise<Chosen> {
    const { partition, offset } = message;
    const place = { partition, offset };
    const found = this.#found();
    if (this.#where !== null && this.#where.test(message) !== "yes")
      return passed(place, "skipped");
    if (this.#job.wanted.kind === "replay") return this.#replayed(message, found);
    const letter = letterOf(message);
    const state = await this.#parts.marks.stateOf(place);
    if (!isWanted(letter, state, this.#job.wanted)) return passed(place, "skipped");
    return this.#redriven(message, letter);
  }

  #found(): readonly RunningRoute[] {
    const { rule, target, kind } = this.#job.wanted;
    const found = this.#parts.routes.of(rule, kind === "replay" ? target : null);
    if (found.length > 0) return found;
    const named = target === null ? "" : `, target ${target}`;
    throw new NotFoundError(`there is no rule ${rule}${named} that runs`);
  }

  #replayed(message: StoredMessage, found: readonly RunningRoute[]): Chosen {
    const { stream, partition, offset } = message;
    const again = againName("replay", `${this.#job.id}/${stream}/${partition}/${offset}`);
    const targets = Map.groupBy(found, ({ target }) => target);
    const items: Item[] = [];
    for (const [target, routes] of targets) {
      // Another stream than the rule's may have more partitions.
      const running = routes.find((each) => each.partition === partition % routes.length);
      assert(running !== undefined, "a target has a route on each partition");
      if (running.route.revision.rule.matches(message) !== "yes") continue;
      items.push({ target, partition: running.partition, message, again });
    }
    const because = items.length > 0 ? "sent" : "filtered";
    return { place: { partition, offset }, items, because, error: null };
  }

  #redriven(stored: StoredMessage, { message, target }: Letter): Chosen {
    const { stream, partition, offset } = stored;
    const place = { partition, offset };
    const { id, wanted } = this.#job;
    const by = `${stream}/${partition}/${offset}`;
    const again = againName("redrive", wanted.again ? `${by} ${id}` : by);
    assert(target !== null, "a letter that is wanted names its target");
    const running = this.#parts.routes.of(wanted.rule, target);
    if (running.length === 0) {
      const error = `rule ${wanted.rule} has no target ${target} any more`;
      if (this.#parts.isDefined(wanted.rule, target)) throw new NotFoundError(error);
      return { place, items: [], because: "failed", error };
    }
    try {
      const changed = this.#change === null ? message : placed(this.#change(message), message);
      const index = message.partition % running.length;
      const items = [{ target, partition: index, message: changed, again }];
      return { place, items, because: "sent", error: null };
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error;
      return { place, items: [], because: "failed", error: error.message };
    }
  }
}

/** Whether a dead letter is one of those that a job or a list is about. */
export function isWanted(
  letter: Letter,
  state: LetterState,
  wanted: Pick<JobWanted, "rule" | "target" | "reason" | "again">,
): boolean {
  if (state !== "pending" && !wanted.again) return false;
  if (letter.rule !== wanted.rule || letter.target === null) return false;
  if (wanted.target !== null && letter.target !== wanted.target) return false;
  return hasReason(letter, wanted.reason);
}

/** Whether a text stands in a letter's reason, in any case. */
export function hasReason({ reason }: Letter, text: string | null): boolean {
  return text === null || reason.toLowerCase().includes(text.toLowerCase());
}

function passed(place: ReadPlace, because: Chosen["because"]): Chosen {
  return { place, items: [], because, error: null };
}
