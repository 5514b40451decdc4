/**
 * Runs a draft of a rule and the live one over recorded messages, and tells what would change:
 * nothing is sent and nothing is stored. It takes its share of one core at most and steps aside
 * between short slices, so that deliveries go on nearly as before; the consumer's pace bounds it
 * too, for nothing is done while nobody asks for the next event.
 */
import { type Clock, nextTurn } from "../clock.ts";
import { previewLossesMax, previewSamplesMax, previewSliceMs, previewTellMs } from "./limits.ts";
import type { Gap, StreamBatch } from "../log/stream-reader.ts";
import { decodeText, type StoredMessage } from "../message.ts";
import { diffValues } from "./diff.ts";
import {
  isSameOutgoing,
  type Rehearsal,
  type RuleOutcome,
  type ShownOutgoing,
  shownOutgoing,
  type TargetOutcome,
} from "./rehearsal.ts";

/** What a preview looks at. */
export interface PreviewInput {
  /** Null: such a rule takes nothing, being disabled, deleted, new or of another stream. */
  readonly draft: Rehearsal | null;
  readonly live: Rehearsal | null;
  /** The next recorded messages, in small steps; null at the end. */
  readonly next: () => Promise<StreamBatch | null>;
  /** At most so many messages. */
  readonly limit: number;
  /** How many there are at most, whatever the limit. */
  readonly total: number;
  readonly clock: Clock;
  /** The share of the time that it may work, asked anew for each slice: others may run too. */
  readonly share: () => number;
  /** Ends the preview at its next step, without a result. */
  readonly signal: AbortSignal;
}

/** Counts of messages. */
export interface PreviewCounts {
  messages: number;
  matchedLive: number;
  matchedDraft: number;
  /** The draft takes them and the live rule does not. */
  added: number;
  /** The live rule takes them and the draft does not. */
  removed: number;
  /** Both take them, and what would be sent differs. */
  changed: number;
  same: number;
  /** The draft takes them, and `set`, an address or the bridge would refuse at some target. */
  refused: number;
  /** The same of the live rule, to compare with. */
  refusedLive: number;
  /** The draft's `where` fails on them, which counts as no. */
  whereFailed: number;
}

/** One message as a sample. */
export interface PreviewSample {
  readonly partition: number;
  readonly offset: number;
  readonly id: string;
  readonly key: string | null;
  readonly targets: readonly SampleTarget[];
}

/** What one target gets by the live rule and would get by the draft. */
export interface SampleTarget {
  readonly target: string;
  readonly before: ShownOutgoing | null;
  readonly after: ShownOutgoing | null;
  /** Why the draft's would be refused. */
  readonly refused: string | null;
  /** Line by line, when both are there and differ. */
  readonly diff: readonly string[];
}

/** One kind of loss at one target. */
export interface PreviewLoss {
  readonly target: string;
  readonly loss: string;
  readonly messages: number;
}

export interface PreviewProgress {
  readonly messages: number;
  readonly total: number;
}

/** What a preview found. */
export interface PreviewResult {
  readonly counts: PreviewCounts;
  readonly samples: Readonly<Record<Bucket, readonly PreviewSample[]>>;
  readonly losses: readonly PreviewLoss[];
  /** Recorded messages that are gone. */
  readonly gaps: readonly Gap[];
  /** False when it ended at its limit of messages. */
  readonly complete: boolean;
  /** Work and wall time. Milliseconds. */
  readonly workedMs: number;
  readonly tookMs: number;
}

type Bucket = "added" | "removed" | "changed" | "refused";

/** Progress now and then, and the result as the last one. */
export type PreviewEvent =
  | { readonly progress: PreviewProgress }
  | { readonly result: PreviewResult };

/** Runs a preview; ends without a result when it is aborted. Throws what reading throws. */
export async function* preview(input: PreviewInput): AsyncGenerator<PreviewEvent, void> {
  const { clock, signal, limit } = input;
  const duty = new Duty(input);
  const tally = new Tally(input);
  let toldMs = clock.monotonicMs();
  let batch = await duty.work(input.next);
  while (batch !== null) {
    tally.gaps.push(...batch.gaps);
    for (const message of batch.messages) {
      if (tally.counts.messages >= limit) break;
      tally.take(message);
      if (duty.isOver) await duty.rest();
      if (signal.aborted) return;
      if (clock.monotonicMs() - toldMs < previewTellMs) continue;
      toldMs = clock.monotonicMs();
      yield { progress: { messages: tally.counts.messages, total: Math.min(limit, input.total) } };
    }
    if (tally.counts.messages >= limit) break;
    await duty.rest();
    if (signal.aborted) return;
    batch = await duty.work(input.next);
  }
  if (signal.aborted) return;
  yield { result: tally.result(batch === null || tally.counts.messages >= input.total, duty) };
}

/** Work and rest in a fixed proportion, both measured. */
class Duty {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #share: () => number;
  readonly #beganMs: number;
  #sliceMs: number;
  #owedMs = 0;
  workedMs = 0;

  constructor({ clock, signal, share }: PreviewInput) {
    this.#clock = clock;
    this.#signal = signal;
    this.#share = share;
    this.#beganMs = clock.monotonicMs();
    this.#sliceMs = this.#beganMs;
  }

  get tookMs(): number {
    return this.#clock.monotonicMs() - this.#beganMs;
  }

  /** Whether the slice has taken its time. */
  get isOver(): boolean {
    return this.#clock.monotonicMs() - this.#sliceMs >= previewSliceMs;
  }

  /** Begins a slice with a piece of work. */
  async work<T>(work: () => Promise<T>): Promise<T> {
    this.#sliceMs = this.#clock.monotonicMs();
    return await work();
  }

  /** Rests for as long as the slice was, times what its share leaves to others; moments add up. */
  async rest(): Promise<void> {
    const tookMs = this.#clock.monotonicMs() - this.#sliceMs;
    this.workedMs += tookMs;
    this.#owedMs += tookMs * (1 / this.#share() - 1);
    if (this.#owedMs >= 1) {
      await this.#clock.sleep(this.#owedMs, this.#signal);
      this.#owedMs = 0;
    } else await nextTurn();
    this.#sliceMs = this.#clock.monotonicMs();
  }
}

/** What was found so far. */
class Tally {
  readonly #input: PreviewInput;
  readonly gaps: Gap[] = [];
  readonly #samples: Record<Bucket, PreviewSample[]> = {
    added: [],
    removed: [],
    changed: [],
    refused: [],
  };
  readonly #losses = new Map<string, { target: string; loss: string; messages: number }>();
  readonly counts: PreviewCounts = {
    messages: 0,
    matchedLive: 0,
    matchedDraft: 0,
    added: 0,
    removed: 0,
    changed: 0,
    same: 0,
    refused: 0,
    refusedLive: 0,
    whereFailed: 0,
  };

  constructor(input: PreviewInput) {
    this.#input = input;
  }

  take(message: StoredMessage): void {
    const { counts } = this;
    const live = this.#input.live?.run(message) ?? NOT_TAKEN;
    const draft = this.#input.draft?.run(message) ?? NOT_TAKEN;
    counts.messages++;
    const isLive = live.verdict === "yes";
    const isDraft = draft.verdict === "yes";
    if (isLive) counts.matchedLive++;
    if (isDraft) counts.matchedDraft++;
    if (draft.verdict === "failed") counts.whereFailed++;
    if (live.targets.some(isRefused)) counts.refusedLive++;
    const bucket = bucketOf(live, draft);
    if (bucket !== null) {
      counts[bucket]++;
      this.#sample(bucket, message, { live, draft });
    } else if (isDraft) counts.same++;
    if (draft.targets.some(isRefused)) {
      counts.refused++;
      this.#sample("refused", message, { live, draft });
    }
    for (const outcome of draft.targets) this.#lose(outcome);
  }

  result(complete: boolean, duty: Duty): PreviewResult {
    return {
      counts: this.counts,
      samples: this.#samples,
      losses: [...this.#losses.values()],
      gaps: this.gaps,
      complete,
      workedMs: duty.workedMs,
      tookMs: duty.tookMs,
    };
  }

  #sample(bucket: Bucket, message: StoredMessage, by: Outcomes): void {
    const samples = this.#samples[bucket];
    if (samples.length >= previewSamplesMax) return;
    const { partition, offset, id, key } = message;
    const targets = sampleTargets(by, bucket);
    samples.push({ partition, offset, id, key: key === null ? null : decodeText(key), targets });
  }

  #lose({ target, losses }: TargetOutcome): void {
    for (const loss of losses) {
      const key = `${target}\n${loss}`;
      const known = this.#losses.get(key);
      if (known !== undefined) known.messages++;
      else if (this.#losses.size < previewLossesMax) {
        this.#losses.set(key, { target, loss, messages: 1 });
      }
    }
  }
}

interface Outcomes {
  readonly live: RuleOutcome;
  readonly draft: RuleOutcome;
}

const NOT_TAKEN: RuleOutcome = { verdict: "no", targets: [] };

function isRefused({ refused }: TargetOutcome): boolean {
  return refused !== null;
}

/** Null: neither takes the message, or both and make the same of it. */
function bucketOf(live: RuleOutcome, draft: RuleOutcome): Exclude<Bucket, "refused"> | null {
  const isLive = live.verdict === "yes";
  const isDraft = draft.verdict === "yes";
  if (isLive !== isDraft) return isDraft ? "added" : "removed";
  return isLive && !isSame(live, draft) ? "changed" : null;
}

function isSame(live: RuleOutcome, draft: RuleOutcome): boolean {
  if (live.targets.length !== draft.targets.length) return false;
  return draft.targets.every((after) => {
    const before = live.targets.find(({ target }) => target === after.target);
    if (before === undefined) return false;
    if (before.outgoing === null || after.outgoing === null) {
      return before.outgoing === after.outgoing && before.refused === after.refused;
    }
    return isSameOutgoing(before.outgoing, after.outgoing);
  });
}

/** The targets that a sample shows: of a change those that differ, of a refusal the refused. */
function sampleTargets({ live, draft }: Outcomes, bucket: Bucket): readonly SampleTarget[] {
  const names = new Set([...live.targets, ...draft.targets].map(({ target }) => target));
  const shown = [...names].map((name): SampleTarget => {
    const before = live.targets.find(({ target }) => target === name);
    const after = draft.targets.find(({ target }) => target === name);
    const old = before === undefined ? null : shownOutgoing(before, true);
    const young = after === undefined ? null : shownOutgoing(after, true);
    const diff = old === null || young === null ? [] : diffValues(old, young);
    const refused = after?.refused ?? null;
    return { target: name, before: old, after: young, refused, diff };
  });
  if (bucket === "refused") return shown.filter(({ refused }) => refused !== null);
  if (bucket !== "changed") return shown;
  return shown.filter(({ before, after, diff, refused }) => {
    return diff.length > 0 || before === null || after === null || refused !== null;
  });
}
