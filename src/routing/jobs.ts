/**
 * Runs the jobs that send again. A job reads its window and hands messages to routes, where they
 * stand durably among those that wait; then it saves how far it has come. After a crash it hands
 * over again what it had not saved: routes know it by its name and take it once.
 */
import type { Clock } from "../clock.ts";
import { nextTurn } from "../clock.ts";
import { errorText, GatewayError, LimitError, NotFoundError } from "../errors.ts";
import {
  jobBatchMessages,
  jobRetryMs,
  jobsKeptMax,
  jobsRunningMax,
  jobTurnMs,
  surveyMessagesMax,
  surveySamplesMax,
} from "../limits.ts";
import type { States } from "../log/log.ts";
import type { Stream, Streams } from "../log/stream.ts";
import {
  Chooser,
  type Chosen,
  decodeJob,
  encodeJob,
  type Item,
  type JobCounts,
  type JobRecord,
  type JobWanted,
} from "./job.ts";
import { LetterMarks, readSpan, type Span } from "./letters.ts";
import type { Routes } from "./routes.ts";
import { Tasks } from "./tasks.ts";

/** What jobs work with. */
export interface JobsParts {
  readonly routes: Routes;
  readonly streams: Streams;
  readonly states: States;
  readonly clock: Clock;
  readonly random: () => number;
  /** Whether the rules name it: its routes may all the same not run for a moment. */
  readonly isDefined: (rule: string, target: string | null) => boolean;
  readonly info: (sentence: string) => void;
  readonly warn: (sentence: string) => void;
}

/** What a job would do. */
export interface Survey {
  readonly counts: JobCounts;
  /** False: there is more than one look goes over. */
  readonly complete: boolean;
  /** Some of those that would be sent or failed; `refused`: why a target could not be given it. */
  readonly samples: readonly {
    readonly place: string;
    readonly id: string;
    readonly target: string | null;
    readonly refused: string | null;
  }[];
}

interface Running {
  readonly job: JobRecord;
  readonly cancel: AbortController;
}

const PREFIX = "job/";
/** What a job looks at before others have their turn. Count. */
const TURN_MESSAGES = 100;

/** The jobs of one process. Start it once, stop it once. */
export class Jobs {
  readonly #parts: JobsParts;
  readonly #jobs = new Map<string, Running>();
  readonly #marks = new Map<string, LetterMarks>();
  readonly #stop = new AbortController();
  readonly #tasks: Tasks;

  constructor(parts: JobsParts) {
    this.#parts = parts;
    this.#tasks = new Tasks((error) => parts.warn(`a job ended: ${errorText(error)}`));
  }

  /** Goes on with what was under way when the process ended. @throws StorageError */
  async start(): Promise<void> {
    const { states } = this.#parts;
    for (const key of states.keys(PREFIX).toSorted()) {
      const bytes = await states.load(key);
      if (bytes === null) continue;
      const job = decodeJob(bytes);
      this.#jobs.set(job.id, { job, cancel: new AbortController() });
    }
    for (const running of this.#jobs.values()) {
      if (running.job.state === "running") this.#tasks.run(() => this.#run(running));
    }
  }

  /** Ends; what is under way goes on at the next start. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#tasks.ended();
  }

  /** All that are kept, newest first. */
  list(): readonly JobRecord[] {
    return [...this.#jobs.values()].map(({ job }) => job).toReversed();
  }

  /** @throws NotFoundError */
  get(id: string): JobRecord {
    return this.#find(id).job;
  }

  /** What became of the dead letters of a stream. */
  marks(stream: string): LetterMarks {
    let marks = this.#marks.get(stream);
    if (marks === undefined) {
      marks = new LetterMarks(this.#parts.states, this.#parts.streams.stream(stream));
      this.#marks.set(stream, marks);
    }
    return marks;
  }

  /**
   * Begins a job; resolves once it is on disk: from then on it will be done. @throws InvalidError
   * `where` or `set` does not compile. @throws NotFoundError no such rule or target that runs.
   * @throws LimitError too many are running, or it says too much for a record. @throws StorageError
   */
  async begin(wanted: JobWanted, spans: readonly Span[], by: string): Promise<JobRecord> {
    const { clock, random, states, info } = this.#parts;
    this.#check(wanted);
    const running = [...this.#jobs.values()].filter(({ job }) => job.state === "running");
    if (running.length >= jobsRunningMax) {
      throw new LimitError(
        "rate-limited",
        `${jobsRunningMax} jobs are running: wait, or cancel one`,
      );
    }
    const nowMs = clock.nowMs();
    const mark = Math.floor(random() * 36 ** 4).toString(36);
    const job: JobRecord = {
      id: `${nowMs.toString(36)}${mark.padStart(4, "0")}`,
      wanted,
      by,
      createdAtMs: nowMs,
      spans,
      state: "running",
      error: null,
      endedAtMs: null,
      counts: { read: 0, sent: 0, skipped: 0, filtered: 0, failed: 0 },
    };
    const entry = { job, cancel: new AbortController() };
    this.#jobs.set(job.id, entry);
    const old = this.#forgotten();
    try {
      await states.save([[keyOf(job), encodeJob(job)], ...old]);
    } catch (error) {
      this.#jobs.delete(job.id);
      throw error;
    }
    info(`${by} has begun ${wanted.kind} ${job.id} of ${wanted.stream} to rule ${wanted.rule}`);
    this.#tasks.run(() => this.#run(entry));
    return job;
  }

  /** Ends a job: nothing more is handed over. @throws NotFoundError. @throws StorageError */
  async cancel(id: string, by: string): Promise<JobRecord> {
    const { job, cancel } = this.#find(id);
    if (job.state !== "running") return job;
    cancel.abort();
    await this.#end(job, "cancelled", null);
    this.#parts.info(`${by} has cancelled ${job.wanted.kind} ${id}`);
    return job;
  }

  /** What a job would do, as far as one look goes. Throws as `begin`. */
  async survey(wanted: JobWanted, spans: readonly Span[], signal: AbortSignal): Promise<Survey> {
    const chooser = this.#check(wanted);
    const stream = this.#parts.streams.stream(wanted.stream);
    const own = spans.map((span) => ({ ...span }));
    const counts: JobCounts = { read: 0, sent: 0, skipped: 0, filtered: 0, failed: 0 };
    const samples: Survey["samples"][number][] = [];
    while (counts.read < surveyMessagesMax && !signal.aborted) {
      const messages = await readSpan(stream, own, TURN_MESSAGES);
      if (messages.length === 0) return { counts, complete: true, samples };
      for (const message of messages) {
        const chosen = await chooser.choose(message);
        count(counts, chosen);
        const room = surveySamplesMax - samples.length;
        if (room > 0)
          samples.push(...this.#samples(wanted.rule, message.id, chosen).slice(0, room));
      }
      await nextTurn();
    }
    return { counts, complete: false, samples };
  }

  #samples(rule: string, id: string, chosen: Chosen): Survey["samples"][number][] {
    const { items, error } = chosen;
    const place = `${chosen.place.partition}/${chosen.place.offset}`;
    if (error !== null) return [{ place, id, target: null, refused: error }];
    return items.map(({ target, partition, message }) => {
      const route = this.#parts.routes.find(rule, target, partition);
      try {
        route?.revision.target.render(message);
        return { place, id, target, refused: null };
      } catch (cause) {
        return { place, id, target, refused: errorText(cause) };
      }
    });
  }

  #check(wanted: JobWanted): Chooser {
    const { routes } = this.#parts;
    const { rule, target } = wanted;
    if (routes.of(rule, target).length === 0) {
      const named = target === null ? "" : `, target ${target},`;
      throw new NotFoundError(`there is no rule ${rule}${named} that runs`);
    }
    return this.#chooser({ id: "new", wanted });
  }

  #chooser(job: Pick<JobRecord, "id" | "wanted">): Chooser {
    const { routes, isDefined } = this.#parts;
    return new Chooser(job, { routes, isDefined, marks: this.marks(job.wanted.stream) });
  }

  #isDefined({ wanted }: JobRecord): boolean {
    return this.#parts.isDefined(wanted.rule, wanted.kind === "replay" ? wanted.target : null);
  }

  async #run({ job, cancel }: Running): Promise<void> {
    const { streams, clock, warn } = this.#parts;
    const signal = AbortSignal.any([cancel.signal, this.#stop.signal]);
    const chooser = this.#chooser(job);
    const stream = streams.stream(job.wanted.stream);
    while (!signal.aborted) {
      try {
        const startedMs = clock.monotonicMs();
        const batch = await this.#step(job, { stream, chooser, signal });
        if (batch === null) return;
        const tookMs = clock.monotonicMs() - startedMs;
        await clock.sleep(Math.max(0, restMs(job.wanted, batch) - tookMs), signal);
      } catch (error) {
        // Routes that do not run for a moment, or a log that takes nothing now: tried again.
        const isLater = error instanceof NotFoundError ? this.#isDefined(job) : isRetryable(error);
        if (!isLater) return await this.#end(job, "failed", errorText(error));
        warn(`${job.wanted.kind} ${job.id}: ${errorText(error)}`);
        await clock.sleep(jobRetryMs, signal);
      }
    }
  }

  /** One batch, handed over and saved; how many went out, or null when there is nothing more. */
  async #step(
    job: JobRecord,
    how: { readonly stream: Stream; readonly chooser: Chooser; readonly signal: AbortSignal },
  ): Promise<number | null> {
    const { stream, chooser, signal } = how;
    const { kind } = job.wanted;
    const spans = job.spans.map((span) => ({ ...span }));
    const messages = await readSpan(stream, spans, batchOf(job.wanted));
    const chosen: Chosen[] = [];
    for (const message of messages) {
      chosen.push(await chooser.choose(message));
      if (chosen.length % TURN_MESSAGES === 0) await nextTurn();
    }
    const items = chosen.flatMap((each) => each.items);
    await this.#handOver(job, items, signal);
    if (signal.aborted) return null;
    const places = chosen.filter((each) => each.items.length > 0).map(({ place }) => place);
    const marks = kind === "redrive" ? await this.marks(stream.name).mark(places, "redriven") : [];
    if (messages.length === 0) {
      await this.#end(job, "done", null);
      return null;
    }
    const counts = { ...job.counts };
    for (const each of chosen) count(counts, each);
    const after = { ...job, counts, spans };
    await this.#parts.states.save([...marks, [keyOf(job), encodeJob(after)]]);
    // Cancelled meanwhile: its record says so once more, with what it had come to.
    Object.assign(job, { counts, spans });
    if (signal.aborted && job.state === "cancelled") await this.#end(job, "cancelled", null);
    return items.length;
  }

  /** Resolves when routes have taken all, or when aborted. Equal keys keep their order. */
  async #handOver(job: JobRecord, items: readonly Item[], signal: AbortSignal): Promise<void> {
    const { routes, clock } = this.#parts;
    const { rule } = job.wanted;
    for (let left = items; left.length > 0 && !signal.aborted; ) {
      const taken = await Promise.all(
        left.map(async ({ target, partition, message, again }) => {
          const route = routes.find(rule, target, partition);
          if (route === null && routes.of(rule, target).length === 0) {
            throw new NotFoundError(`rule ${rule} has no target ${target} any more`);
          }
          return route === null ? null : await route.takeAgain(message, again);
        }),
      );
      left = left.filter((_, index) => (taken[index] ?? null) === null);
      job.error =
        left.length === 0 ? null : "a route has no room, is disabled, or begins: it waits";
      if (left.length > 0) await clock.sleep(jobRetryMs, signal);
    }
  }

  async #end(job: JobRecord, state: JobRecord["state"], error: string | null): Promise<void> {
    const { states, clock, info } = this.#parts;
    job.state = state;
    job.error = error;
    job.endedAtMs = clock.nowMs();
    await states.save([[keyOf(job), encodeJob(job)]]);
    const { sent, read } = job.counts;
    info(`${job.wanted.kind} ${job.id} is ${state}: ${sent} of ${read} messages sent again`);
  }

  /** The oldest that have ended, beyond what is kept. */
  #forgotten(): [string, null][] {
    const ended = [...this.#jobs.values()].filter(({ job }) => job.state !== "running");
    const old = ended.slice(0, Math.max(0, this.#jobs.size - jobsKeptMax));
    for (const { job } of old) this.#jobs.delete(job.id);
    return old.map(({ job }) => [keyOf(job), null]);
  }

  #find(id: string): Running {
    const found = this.#jobs.get(id);
    if (found === undefined) throw new NotFoundError(`there is no job ${id.slice(0, 60)}`);
    return found;
  }
}

function isRetryable(error: unknown): boolean {
  return error instanceof GatewayError && error.retryable;
}

function keyOf({ id }: JobRecord): string {
  return `${PREFIX}${id}`;
}

function count(counts: JobCounts, { because }: Chosen): void {
  counts.read++;
  counts[because]++;
}

/** How many are read at a time, so that a rate is even. */
function batchOf({ rate }: JobWanted): number {
  if (rate === null) return jobBatchMessages;
  const inTurn = Math.floor((rate.count * jobTurnMs) / rate.perMs);
  return Math.min(jobBatchMessages, Math.max(1, inTurn));
}

function restMs({ rate }: JobWanted, sent: number): number {
  return rate === null ? 0 : Math.ceil((sent * rate.perMs) / rate.count);
}
