/**
 * Keeps sets in the embedded database. The snapshot is the truth: it is synced before the
 * transaction commits, so this database, which does not sync, can only be behind, and is then
 * filled from it. A start with a good snapshot opens no database.
 */
import type { Queries } from "../../../schema/migrate.ts";
import type { Clock } from "../../clock.ts";
import { errorText } from "../../errors.ts";
import type { Accepted } from "./accepted.ts";
import type { Plan } from "./change.ts";
import { EmbeddedDatabase } from "./embedded.ts";
import {
  accepted,
  brokenSnapshot,
  compare,
  type Keeper,
  type KeeperOptions,
  keepSnapshot,
  type Planner,
  type Started,
  setAside,
} from "./keeper.ts";
import { loadState, lockStanding, readStanding } from "./rows.ts";
import { readSnapshot, snapshotPath } from "./snapshot.ts";
import { emptyState, type State } from "./state.ts";
import { fillFrom, writeChange, writeKeyProof } from "./write.ts";

/** What this keeper needs beside the rest. */
export interface EmbeddedKeeperOptions extends KeeperOptions {
  readonly clock: Clock;
  /** The database is closed after so long without use, milliseconds. */
  readonly idleMs: number;
}

/** The keeper of one process with a data folder of its own. */
export class EmbeddedKeeper implements Keeper {
  readonly #options: EmbeddedKeeperOptions;
  readonly #folder: string;
  readonly #database: EmbeddedDatabase;
  readonly refusal = null;

  constructor(options: EmbeddedKeeperOptions) {
    this.#options = options;
    this.#folder = `${options.dataFolder}/pglite`;
    this.#database = new EmbeddedDatabase({ ...options, folder: this.#folder });
  }

  async start(): Promise<Started> {
    const options = this.#options;
    const read = await readSnapshot(options.files, snapshotPath(options.dataFolder));
    if (read.kind === "good") return await this.#started(read.state);
    if (!(await options.files.exists(this.#folder))) {
      if (read.kind === "broken") throw brokenSnapshot(options.dataFolder, read);
      return await this.#startedFirst();
    }
    const version = read.kind === "broken" ? (read.version ?? Number.POSITIVE_INFINITY) : 0;
    const state = await this.#database.transaction(
      async (tx) => await loadFrom(tx, version),
      "read",
    );
    if (state === null) {
      if (read.kind === "broken") throw brokenSnapshot(options.dataFolder, read);
      return await this.#startedFirst();
    }
    if (read.kind === "broken") await setAside(options, read);
    else options.warn("the snapshot of the definitions is missing: made anew from the database");
    const started = await this.#started(state);
    await keepSnapshot(options, started.state);
    return started;
  }

  async #started(state: State): Promise<Started> {
    this.#database.allowReplacing();
    const keyring = await this.#options.keyring(state.keyProof === "" ? null : state.keyProof);
    return { state: { ...state, keyProof: keyring.proof }, keyring, reason: null };
  }

  async #startedFirst(): Promise<Started> {
    const started = await this.#started(emptyState(""));
    await keepSnapshot(this.#options, started.state);
    return started;
  }

  async keep<Result>(current: Accepted, plan: Planner<Result>): Promise<Plan<Result>> {
    const planned = plan(current);
    if (planned.write === null) return planned;
    let kept: Plan<Result> | null = null;
    try {
      return await this.#database.transaction(async (tx) => {
        const base = await this.#base(tx, current);
        const last = base === current ? planned : plan(base);
        if (last.write !== null) await writeChange(tx, last.write);
        await keepSnapshot(this.#options, last.next.state);
        kept = last;
        return last;
      });
    } catch (error) {
      if (kept === null) throw error;
      // The snapshot is synced and so the change is made; the database is filled when next used.
      this.#options.warn(`the embedded database did not take a change: ${errorText(error)}`);
      return kept;
    }
  }

  /** Nobody else changes anything here. */
  async follow(): Promise<null> {
    return null;
  }

  async read<T>(current: Accepted, work: (tx: Queries) => Promise<T>): Promise<T> {
    return await this.#database.transaction(async (tx) => {
      await this.#base(tx, current);
      return await work(tx);
    });
  }

  /** The set to plan on: the current one, to which the database is brought when it isn't there. */
  async #base(tx: Queries, current: Accepted): Promise<Accepted> {
    const { warn, parse } = this.#options;
    const { state, definitions } = current;
    const standing = await lockStanding(tx);
    const comparison = await compare(tx, standing, state);
    if (comparison === "newer") {
      warn(
        `the embedded database is at version ${standing.version}, newer than the snapshot's ${state.version}: the newer one is taken`,
      );
      return accepted(await loadState(tx, state.keyProof), definitions, parse);
    }
    if (comparison === "unknown") {
      warn(
        `the embedded database is at version ${standing.version} and the snapshot at ${state.version}: the database is filled from the snapshot`,
      );
      await fillFrom(tx, state, this.#options.clock.nowMs());
    } else if (standing.keyProof !== state.keyProof) {
      await writeKeyProof(tx, state.keyProof);
    }
    return current;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database[Symbol.asyncDispose]();
  }
}

/** The database's set if it has come as far as `version`, and holds anything at all. */
async function loadFrom(tx: Queries, version: number): Promise<State | null> {
  const standing = await readStanding(tx);
  if (standing.version < version || standing.version === 0) return null;
  return await loadState(tx, standing.keyProof ?? "");
}
