/**
 * Keeps sets in a Postgres that several gateways may share. The database is the truth and commits
 * first; then comes this process's snapshot. While it is away, and when it has lost what this
 * process runs (restored from a backup, a replica that was behind), the set from the snapshot goes
 * on and changes are refused.
 */
import type { Queries } from "../../../schema/migrate.ts";
import type { Clock } from "../../clock.ts";
import { assert } from "../../assert.ts";
import { DatabaseError, InvalidError } from "../../errors.ts";
import type { Accepted } from "./accepted.ts";
import type { Plan } from "./change.ts";
import { READ_ONLY_TEXT, RefusedError } from "./database.ts";
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
import { PostgresDatabase } from "./postgres.ts";
import { isReadOnly, loadState, lockStanding, readStanding, type Standing } from "./rows.ts";
import type { Keyring } from "./secrets.ts";
import { readSnapshot, snapshotPath } from "./snapshot.ts";
import { emptyState, type State } from "./state.ts";
import { CHANGE_CHANNEL, fillFrom, writeChange, writeKeyProof } from "./write.ts";

/** What this keeper needs beside the rest. */
export interface PostgresKeeperOptions extends KeeperOptions {
  readonly url: string;
  readonly clock: Clock;
  /** Called when another process tells of a change. */
  readonly onNotice: () => void;
}

/** The keeper of a process that shares its definitions. */
export class PostgresKeeper implements Keeper {
  readonly #options: PostgresKeeperOptions;
  readonly #database: PostgresDatabase;
  #keyring: Keyring | null = null;
  #isReadOnly = false;

  constructor(options: PostgresKeeperOptions) {
    this.#options = options;
    this.#database = new PostgresDatabase({ ...options, channel: CHANGE_CHANNEL });
  }

  /** A standby, or a database that was set to read only: what it holds is followed. */
  get refusal(): string | null {
    return this.#isReadOnly ? READ_ONLY_TEXT : null;
  }

  async start(): Promise<Started> {
    const options = this.#options;
    const read = await readSnapshot(options.files, snapshotPath(options.dataFolder));
    const known = read.kind === "good" ? read.state : null;
    const keyring = await options.keyring(known?.keyProof ?? null);
    this.#keyring = keyring;
    let found: State;
    try {
      found = await this.#claim(known ?? emptyState(keyring.proof));
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      if (error instanceof RefusedError)
        throw new InvalidError(error.message, [], { cause: error });
      if (read.kind === "broken") throw brokenSnapshot(options.dataFolder, read);
      if (known === null) throw error;
      options.warn(`${error.message}; going on with the definitions of the snapshot`);
      return { state: known, keyring, reason: error.message };
    }
    if (read.kind === "broken") {
      if (found.version < (read.version ?? 0)) throw brokenSnapshot(options.dataFolder, read);
      await setAside(options, read);
    }
    if (found !== known) await keepSnapshot(options, found);
    return { state: found, keyring, reason: null };
  }

  /**
   * First contact: the set of a database that is there, whose key is ours. A database that can
   * only be read will do unless something has to be written.
   */
  async #claim(known: State): Promise<State> {
    const { newer, isEmpty } = await this.#database.transaction(async (tx) => {
      const standing = await readStanding(tx);
      this.#checkKey(standing);
      const isKeyless = standing.keyProof === null;
      return { newer: await this.#newer(tx, standing, known), isEmpty: isKeyless };
    }, "read");
    if (isEmpty) {
      await this.#database.transaction(async (tx) => {
        await this.#bring(tx, await lockStanding(tx), known);
      });
    }
    return newer ?? known;
  }

  async keep<Result>(current: Accepted, plan: Planner<Result>): Promise<Plan<Result>> {
    const planned = await this.#database.transaction(async (tx) => {
      const standing = await lockStanding(tx);
      await this.#bring(tx, standing, current.state);
      const state = await this.#newer(tx, standing, current.state);
      const base = state === null ? current : this.#accepted(state, current);
      const last = plan(base);
      if (last.write !== null) await writeChange(tx, last.write);
      return last;
    });
    if (planned.next.state !== current.state) await keepSnapshot(this.#options, planned.next.state);
    return planned;
  }

  async follow(current: Accepted): Promise<Accepted | null> {
    const { standing, state } = await this.#database.transaction(async (tx) => {
      const there = await readStanding(tx);
      this.#checkKey(there);
      this.#isReadOnly = await isReadOnly(tx);
      return { standing: there, state: await this.#newer(tx, there, current.state) };
    }, "read");
    if (standing.keyProof === null && !this.#isReadOnly) {
      await this.#database.transaction(async (tx) => {
        await this.#bring(tx, await lockStanding(tx), current.state);
      });
    }
    if (state === null) return null;
    const next = this.#accepted(state, current);
    await keepSnapshot(this.#options, next.state);
    return next;
  }

  async read<T>(_current: Accepted, work: (tx: Queries) => Promise<T>): Promise<T> {
    return await this.#database.transaction(work, "read");
  }

  #accepted(state: State, current: Accepted): Accepted {
    return accepted(state, current.definitions, this.#options.parse);
  }

  /** A database that has never been used gets what this process has, and the proof of its key. */
  async #bring(tx: Queries, standing: Standing, state: State): Promise<void> {
    this.#checkKey(standing);
    if (standing.version === 0 && state.version > 0) {
      this.#options.warn(
        `the database is empty: filled from the snapshot, which is at version ${state.version}`,
      );
      await fillFrom(tx, state, this.#options.clock.nowMs());
    } else if (standing.keyProof === null) {
      await writeKeyProof(tx, state.keyProof);
    }
  }

  /** The database's set when it comes after `state`, else null. */
  async #newer(tx: Queries, standing: Standing, state: State): Promise<State | null> {
    if (standing.version === 0) return null;
    const comparison = await compare(tx, standing, state);
    if (comparison === "newer") return await loadState(tx, state.keyProof);
    if (comparison === "same") return null;
    throw new DatabaseError(
      `the database is at version ${standing.version} and never held version ${state.version}, which this gateway runs: it was restored from an older copy, or is another one. To take what it holds, stop, move ${snapshotPath(this.#options.dataFolder)} away, and start`,
    );
  }

  #checkKey(standing: Standing): void {
    assert(this.#keyring !== null, "the keeper was started");
    if (standing.keyProof === null || this.#keyring.proves(standing.keyProof)) return;
    throw new RefusedError(
      "ISTHMUS_SECRET_KEY is not the key that the secrets in the database were encrypted with",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database[Symbol.asyncDispose]();
  }
}
