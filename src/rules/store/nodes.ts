/**
 * This gateway among those that share a Postgres: each tells of itself, and a source that can't be
 * shared runs in the one that has its lock. While the database is away everybody goes on with what
 * it has; when it is back, who had a lock takes it first and the others wait a moment, so that a
 * restart of the database moves nothing. Nothing here is on the way of a message.
 */
import type { Clock } from "../../clock.ts";
import { DatabaseError, errorText } from "../../errors.ts";
import type { States } from "../../log/log.ts";
import {
  type Asked,
  endSession,
  giveLocks,
  leave,
  listNodes,
  type LockStanding,
  type NodeRow,
  takeLocks,
  tell,
} from "./node-rows.ts";
import { databaseError } from "./database.ts";
import { passwordOf } from "./postgres.ts";
import { openSession, type Session } from "./session.ts";

/** How often locks are looked at: a gateway that died is replaced so soon. */
const LOOK_MS = 1_000;
/** How often when something has just been asked for. */
const SOON_MS = 100;
/** How often a gateway tells of itself when nothing has changed. */
const TELL_MS = 5_000;
/** One that has been silent for longer is not named as who runs a source. */
const SILENT_MS = 20_000;
/** A database that has not answered for so long is away. */
const ANSWER_MS_MAX = 10_000;
/** What a stop waits for a database at most. */
const LEAVE_MS_MAX = 1_000;
/** After the database was away, those that had a lock take it again before others try. */
const GRACE_MS = 3_000;
/** States of the log that say which locks this gateway had. */
const HELD_PREFIX = "$turn/";

/** What a gateway tells of itself that changes. */
export interface NodeState {
  readonly ready: boolean;
  readonly definitionsVersion: number;
}

/** What membership needs. */
export interface NodesOptions {
  readonly url: string;
  readonly self: Pick<NodeRow, "id" | "name" | "url" | "version" | "startedAtMs">;
  readonly state: () => NodeState;
  /** Remembers which locks were held, for a start while the database is away. */
  readonly states: States;
  readonly clock: Clock;
  readonly warn: (line: string) => void;
}

/** The right to run a source alone. */
export interface Turn {
  /** Aborted when another gateway has it. */
  readonly lost: AbortSignal;
  /** Gives it back; call it once, when the source has stopped. */
  release(): void;
}

interface Wanted {
  readonly name: string;
  readonly granted: PromiseWithResolvers<Turn | null>;
  readonly lost: AbortController;
  isHeld: boolean;
  holder: number | null;
}

/** The membership of one gateway. */
export class Nodes implements AsyncDisposable {
  readonly #options: NodesOptions;
  readonly #wanted = new Map<string, Wanted>();
  /** Locks whose source has stopped. */
  readonly #given = new Set<string>();
  /** The sessions that this process has had. */
  readonly #backends = new Set<number>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #password: string;
  #wake = new AbortController();
  #session: Session | null = null;
  #wasAway = false;
  #graceEndsMs = 0;
  #told = "";
  #toldMs = 0;
  #failure: string | null = null;
  #rows: readonly NodeRow[] = [];
  #readMs = 0;

  constructor(options: NodesOptions) {
    this.#options = options;
    this.#password = passwordOf(options.url);
    this.#running = this.#run();
  }

  /** What this gateway tells of itself that stays. */
  get self(): NodesOptions["self"] {
    return this.#options.self;
  }

  /** The others that were heard of lately, as they were last seen. */
  others(): readonly NodeRow[] {
    const sinceMs = this.#options.clock.monotonicMs() - this.#readMs;
    return this.#rows
      .filter(({ id }) => id !== this.#options.self.id)
      .map((row) => ({ ...row, silentMs: Math.round(row.silentMs + sinceMs) }));
  }

  /** The sources that this gateway runs alone. */
  held(): readonly string[] {
    return [...this.#wanted.values()].filter(({ isHeld }) => isHeld).map(({ name }) => name);
  }

  /** Who runs a source that this gateway waits for, in words. */
  holder(name: string): string {
    if (this.#failure !== null) return `it is not known which gateway runs it: ${this.#failure}`;
    const backend = this.#wanted.get(name)?.holder ?? null;
    if (backend === null) return "it is not known yet which gateway runs it";
    const node = this.others().find((row) => row.backend === backend);
    const isHeard = node !== undefined && node.silentMs < SILENT_MS;
    return isHeard ? `gateway ${node.name} runs it` : "another gateway runs it";
  }

  /**
   * Waits until this gateway may run the source, and until its last turn was given back; null when
   * aborted.
   */
  async take(name: string, signal: AbortSignal): Promise<Turn | null> {
    while (this.#wanted.has(name) && !signal.aborted) {
      await this.#options.clock.sleep(SOON_MS, signal);
    }
    if (signal.aborted) return null;
    const granted = Promise.withResolvers<Turn | null>();
    const lost = new AbortController();
    const wanted: Wanted = { name, granted, lost, isHeld: false, holder: null };
    this.#wanted.set(name, wanted);
    this.#given.delete(name);
    this.#wake.abort();
    const onAbort = (): void => granted.resolve(null);
    signal.addEventListener("abort", onAbort, { once: true });
    const turn = await granted.promise;
    signal.removeEventListener("abort", onAbort);
    if (turn === null) this.#release(wanted);
    return turn;
  }

  /** Frees all locks: every source has stopped. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    const session = this.#session;
    if (session === null) return;
    // An unclean end is noticed by the others all the same.
    const left = leave(session.queries, this.#options.self.id);
    await this.#inTime(left, { ms: LEAVE_MS_MAX }).catch(() => undefined);
    await session.end();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#inTime(this.#look(), { ms: ANSWER_MS_MAX, signal });
        if (this.#failure !== null) this.#options.warn("the other gateways are known again");
        this.#failure = null;
      } catch (error) {
        await this.#away(databaseError(error, this.#password).message);
      }
      this.#wake = signal.aborted ? this.#wake : new AbortController();
      const isNew = [...this.#wanted.values()].some(
        ({ isHeld, holder }) => !isHeld && holder === null,
      );
      const waitMs = isNew && this.#failure === null ? SOON_MS : LOOK_MS;
      await this.#options.clock.sleep(waitMs, AbortSignal.any([this.#wake.signal, signal]));
    }
  }

  /** @throws DatabaseError it takes too long, or was not to be waited for any more. */
  async #inTime<T>(
    work: Promise<T>,
    { ms, signal }: { readonly ms: number; readonly signal?: AbortSignal },
  ): Promise<T> {
    const done = new AbortController();
    const signals = signal === undefined ? [done.signal] : [done.signal, signal];
    const late = this.#options.clock.sleep(ms, AbortSignal.any(signals)).then((): never => {
      throw new DatabaseError(`the database has not answered for ${ms / 1_000} s`);
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      done.abort();
    }
  }

  async #look(): Promise<void> {
    const { clock } = this.#options;
    if (this.#session?.isLost() === true) throw new DatabaseError("the connection was lost");
    if (this.#session === null) {
      const session = await openSession(this.#options.url);
      this.#session = session;
      this.#backends.add(session.backend);
      if (this.#wasAway) this.#graceEndsMs = clock.monotonicMs() + GRACE_MS;
    }
    const { queries } = this.#session;
    const given = [...this.#given];
    if (given.length > 0) await giveLocks(queries, given);
    for (const name of given) this.#given.delete(name);
    const mayTry = clock.monotonicMs() >= this.#graceEndsMs;
    const asked = [...this.#wanted.values()].map(
      ({ name, isHeld }): Asked => ({ name, tries: isHeld || mayTry }),
    );
    for (const standing of asked.length === 0 ? [] : await takeLocks(queries, asked)) {
      await this.#stands(standing, queries);
    }
    await this.#tell(this.#session);
  }

  async #stands(
    { name, isHeld, holder }: LockStanding,
    queries: Session["queries"],
  ): Promise<void> {
    const wanted = this.#wanted.get(name);
    if (wanted === undefined) return;
    const isNews = wanted.holder !== holder;
    wanted.holder = isHeld ? null : holder;
    if (isHeld) return await this.#grant(wanted);
    if (holder === null) return;
    // A session of ours that was cut off still has it: nobody else can.
    if (this.#backends.has(holder)) return await endSession(queries, holder);
    if (isNews) await this.#remember(name, false);
    if (!wanted.isHeld) return;
    this.#options.warn(`source ${name} stops here: ${this.holder(name)}`);
    wanted.isHeld = false;
    this.#wanted.delete(name);
    wanted.lost.abort();
  }

  async #grant(wanted: Wanted): Promise<void> {
    if (wanted.isHeld) return;
    wanted.isHeld = true;
    await this.#remember(wanted.name, true);
    const release = (): void => this.#release(wanted);
    wanted.granted.resolve({ lost: wanted.lost.signal, release });
  }

  #release(wanted: Wanted): void {
    if (this.#wanted.get(wanted.name) !== wanted) return;
    this.#wanted.delete(wanted.name);
    this.#given.add(wanted.name);
    this.#wake.abort();
  }

  /** The row is for people: a database that can only be read does without it. */
  async #tell(session: Session): Promise<void> {
    const { self, state, clock } = this.#options;
    const row = { ...self, ...state(), backend: session.backend, sources: this.held() };
    const text = JSON.stringify(row);
    if (text !== this.#told || clock.monotonicMs() - this.#toldMs >= TELL_MS) {
      await tell(session.queries, row).catch(() => undefined);
      this.#told = text;
      this.#toldMs = clock.monotonicMs();
    }
    this.#rows = await listNodes(session.queries);
    this.#readMs = clock.monotonicMs();
  }

  /** Who had a lock goes on; a process that starts now goes by what its last life had. */
  async #away(reason: string): Promise<void> {
    if (this.#stop.signal.aborted) return;
    if (this.#failure === null) this.#options.warn(`the other gateways are not known: ${reason}`);
    this.#failure = reason;
    const session = this.#session;
    this.#session = null;
    this.#told = "";
    if (session !== null) await session.end();
    if (this.#backends.size === 0) {
      for (const wanted of this.#wanted.values()) {
        if ((await this.#options.states.load(HELD_PREFIX + wanted.name)) === null) continue;
        await this.#grant(wanted);
      }
    }
    this.#wasAway = true;
  }

  async #remember(name: string, isHeld: boolean): Promise<void> {
    const { states } = this.#options;
    try {
      if (((await states.load(HELD_PREFIX + name)) !== null) === isHeld) return;
      await states.save([[HELD_PREFIX + name, isHeld ? new Uint8Array([1]) : null]]);
    } catch (error) {
      this.#options.warn(`who runs source ${name} could not be noted: ${errorText(error)}`);
    }
  }
}
