/**
 * What an operator does to routes that run: pause, resume, move the cursor, release parked keys.
 * All of it is durable when it is answered; who did what is told to the operator's log.
 */
import type { Clock } from "../clock.ts";
import { ConflictError, NotFoundError, OffsetError } from "../errors.ts";
import type { Offset, Partition, States } from "../log/log.ts";
import type { Streams } from "../log/stream.ts";
import type { ChangeContext, Definitions } from "../rules/document.ts";
import type { ChangeResult } from "../rules/store/change.ts";
import { Audit } from "./audit.ts";
import { Jobs } from "./jobs.ts";
import { Journeys } from "./journey.ts";
import type { Routes, RunningRoute } from "./routes.ts";
import type { ParkedKey } from "./status.ts";

/** What operations work with. */
export interface OperationsParts {
  readonly routes: Routes;
  readonly streams: Streams;
  readonly states: States;
  readonly clock: Clock;
  readonly random: () => number;
  readonly store: { current(): Pick<Definitions, "rules"> };
  /** Runs work while nothing else changes what runs. */
  readonly exclusively: <T>(work: () => Promise<T>) => Promise<T>;
  /** The operator's log. */
  readonly events: {
    readonly info: (sentence: string) => void;
    readonly warn: (sentence: string) => void;
  };
}

/** Routes of a rule: all, or those of one target. */
export interface RouteName {
  readonly rule: string;
  readonly target: string | null;
}

/** Where a cursor goes: one place for all partitions, or one partition's offset. */
export type SeekTo =
  | "earliest"
  | "latest"
  | { readonly timestampMs: number }
  | { readonly partition: number; readonly offset: Offset };

/** What a seek does to one route. Offsets may have holes: the counts are upper bounds. */
export interface SeekStep {
  readonly rule: string;
  readonly target: string;
  readonly stream: string;
  readonly partition: number;
  readonly from: Offset;
  readonly to: Offset;
  /** Messages that were handled and will be again, and those that never will be. */
  readonly repeated: number;
  readonly skipped: number;
}

/** The keys of one route that wait for an operator. */
export interface ParkedOf {
  readonly target: string;
  readonly partition: number;
  readonly keys: readonly ParkedKey[];
}

/** The operations of one process. */
export class Operations {
  /** What is sent again. */
  readonly jobs: Jobs;
  /** What became of single messages. */
  readonly journeys: Journeys;
  /** What was done, and by whom. */
  readonly audit: Audit;
  readonly #parts: OperationsParts;

  constructor(parts: OperationsParts) {
    this.#parts = parts;
    this.journeys = new Journeys(parts);
    this.audit = new Audit(parts.streams, parts.clock, parts.events.warn);
    this.jobs = new Jobs({
      ...parts,
      ...parts.events,
      isDefined: (rule, target) => {
        const targets = parts.store.current().rules.get(rule)?.parsed.to ?? [];
        return target === null ? targets.length > 0 : targets.some(({ name }) => name === target);
      },
    });
  }

  /**
   * Pauses routes, or lets them go on; what is under way is finished. Resolves with the number of
   * routes once it is on disk. @throws NotFoundError no such route. @throws StorageError
   */
  async setPaused(name: RouteName, isPaused: boolean, by: string): Promise<number> {
    const { exclusively, events } = this.#parts;
    return await exclusively(async () => {
      const found = this.find(name);
      await Promise.all(found.map(({ route }) => route.setPaused(isPaused)));
      events.info(`${by} has ${isPaused ? "paused" : "resumed"} ${nameText(name)}`);
      await this.#noteRoute(name, by, isPaused ? "paused" : "resumed");
      return found.length;
    });
  }

  /**
   * Moves cursors, or with `dryRun` only says what would be. What waits in a route goes on waiting.
   * @throws NotFoundError no such route. @throws OffsetError no such place. @throws ConflictError a
   * route has not begun: its target or the log is away; try again. @throws StorageError
   */
  async seek(
    name: RouteName,
    to: SeekTo,
    how: { readonly dryRun: boolean; readonly by: string },
  ): Promise<readonly SeekStep[]> {
    const { exclusively, events, routes } = this.#parts;
    return await exclusively(async () => {
      const steps = await Promise.all(this.find(name).map((each) => this.#step(each, to)));
      const moved = steps.filter((step) => step !== null);
      if (moved.length === 0) {
        throw new NotFoundError(`${nameText(name)} has no such partition`);
      }
      if (how.dryRun) return moved.map(({ step }) => step);
      const late = moved.find(({ running }) => !running.route.isBegun);
      if (late !== undefined) {
        const place = `${late.step.stream}/${late.step.partition}`;
        throw new ConflictError("conflict", `the route on ${place} has not begun yet: try again`);
      }
      const moves = moved.filter(({ step }) => step.from !== step.to);
      await routes.seek(new Map(moves.map(({ running, step }) => [running, step.to])));
      events.info(`${how.by} has moved ${nameText(name)} to ${seekText(to)}`);
      await this.#noteRoute(name, how.by, "moved", `to ${seekText(to)}`);
      return moved.map(({ step }) => step);
    });
  }

  /** The keys that wait for an operator, by route. @throws NotFoundError */
  parked(name: RouteName): readonly ParkedOf[] {
    return this.find(name).map(({ target, partition, route }) => ({
      target,
      partition,
      keys: route.parked(),
    }));
  }

  /**
   * Lets parked messages of one lane, or of all, be tried again from their first attempt. Resolves
   * with the number of keys once that is durable. @throws NotFoundError
   */
  async release(name: RouteName, lane: string | null, by: string): Promise<number> {
    const found = this.find(name);
    const counts = await Promise.all(found.map(({ route }) => route.release(lane)));
    const keys = counts.reduce((sum, count) => sum + count, 0);
    this.#parts.events.info(`${by} has released ${keys} parked keys of ${nameText(name)}`);
    await this.#noteRoute(name, by, "released", `${keys} parked keys`);
    return keys;
  }

  /** Keeps a change of definitions in the audit, and gives it back. */
  async changed<Made extends { readonly results: readonly ChangeResult[] }>(
    made: Made,
    { by, why }: ChangeContext,
  ): Promise<Made> {
    const changes = made.results.filter(({ outcome }) => outcome !== "same");
    await this.audit.note(
      changes.map(({ kind, name, revision, outcome: action }) => {
        const reason = why === undefined || why === null ? {} : { why };
        return { by, action, kind, name, revision, ...reason };
      }),
    );
    return made;
  }

  async #noteRoute(name: RouteName, by: string, action: string, detail?: string): Promise<void> {
    const { rule, target } = name;
    const entry = {
      by,
      action,
      kind: "routes",
      name: target === null ? rule : `${rule}/${target}`,
    };
    await this.audit.note([detail === undefined ? entry : { ...entry, detail }]);
  }

  /** Tells the operator's log what was done beside this. */
  note(sentence: string): void {
    this.#parts.events.info(sentence);
  }

  /** The routes of a name. @throws NotFoundError there are none. */
  find(name: RouteName): readonly RunningRoute[] {
    const { routes } = this.#parts;
    const found = routes.of(name.rule, name.target);
    if (found.length > 0) return found;
    const others = new Set(routes.of(name.rule, null).map(({ target }) => target));
    if (others.size === 0) throw new NotFoundError(`there is no rule ${name.rule} that runs`);
    const known = [...others].map((target) => JSON.stringify(target)).join(", ");
    throw new NotFoundError(`${nameText(name)} is no target: rule ${name.rule} has ${known}`);
  }

  async #step(
    running: RunningRoute,
    to: SeekTo,
  ): Promise<{ readonly running: RunningRoute; readonly step: SeekStep } | null> {
    const { rule, target, stream, partition: index, route } = running;
    const partition = this.#parts.streams.stream(stream).partitions[index];
    if (partition === undefined) return null;
    const place = await offsetOf(partition, to);
    if (place === null) return null;
    const from = route.next;
    const repeated = place < from ? from - place + route.doneAbove : 0;
    const skipped = Math.max(0, place - from - (place > from ? route.doneAbove : 0));
    const step = { rule, target, stream, partition: index, from, to: place, repeated, skipped };
    return { running, step };
  }
}

/** A place in one partition; null: the seek does not touch it. @throws OffsetError */
async function offsetOf(partition: Partition, to: SeekTo): Promise<Offset | null> {
  const { offsetStart: earliest, offsetEnd: latest, id } = partition;
  if (to === "earliest") return earliest;
  if (to === "latest") return latest;
  if ("timestampMs" in to) return await partition.offsetAt(to.timestampMs);
  if (to.partition !== id.index) return null;
  if (to.offset >= earliest && to.offset <= latest) return to.offset;
  const range = `${id.stream}/${id.index} holds ${earliest} to ${latest}`;
  throw new OffsetError(`offset ${to.offset} is not there: ${range}`, { earliest, latest });
}

function nameText({ rule, target }: RouteName): string {
  return target === null ? `rule ${rule}` : `rule ${rule}, target ${target}`;
}

function seekText(to: SeekTo): string {
  if (typeof to === "string") return to;
  if ("timestampMs" in to) return new Date(to.timestampMs).toISOString();
  return `${to.partition}/${to.offset}`;
}
