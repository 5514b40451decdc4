/**
 * A keeper puts accepted sets where they last: into a database and the synced snapshot. There is
 * one for the embedded database, which is this process's own and does not sync, and one for
 * Postgres, which processes share. The older of snapshot and database never wins silently.
 */
import type { Queries } from "../../../schema/migrate.ts";
import { CorruptionError } from "../../errors.ts";
import { type Accepted, accept, type Parse, refusedTogether } from "./accepted.ts";
import type { Plan } from "./change.ts";
import type { Definitions } from "../document.ts";
import type { Files } from "./files.ts";
import { holdsChange, type Standing } from "./rows.ts";
import type { Keyring } from "./secrets.ts";
import { type SnapshotRead, snapshotPath, writeSnapshot } from "./snapshot.ts";
import type { State } from "./state.ts";

/** What a start begins with. */
export interface Started {
  readonly state: State;
  readonly keyring: Keyring;
  /** Why the database is not to be used at the moment; null when nothing is wrong. */
  readonly reason: string | null;
}

/** Where sets are kept. Its methods are called one after another, never together. */
export interface Keeper extends AsyncDisposable {
  /**
   * Called once. @throws InvalidError the settings are wrong. @throws CorruptionError the snapshot.
   */
  start(): Promise<Started>;
  /**
   * Plans on the set that the database holds, and keeps what comes of it: on disk when this
   * resolves. @throws DatabaseError nothing was kept. @throws StorageError the snapshot can't be.
   */
  keep<Result>(current: Accepted, plan: Planner<Result>): Promise<Plan<Result>>;
  /** The set after `current` when another process made one; null when it is the last. */
  follow(current: Accepted): Promise<Accepted | null>;
  /** Why changes can't be kept although the database answers; null when they can. */
  readonly refusal: string | null;
  /** Reads the rows of the database. @throws DatabaseError it is away. */
  read<T>(current: Accepted, work: (tx: Queries) => Promise<T>): Promise<T>;
}

/** Makes the next set of the last one; may be called again on another one. */
export type Planner<Result> = (base: Accepted) => Plan<Result>;

/** What every keeper needs. */
export interface KeeperOptions {
  readonly dataFolder: string;
  readonly files: Files;
  readonly parse: Parse;
  readonly warn: (line: string) => void;
  /** The secret key, checked against the proof of the one that was used before (null: none was). */
  readonly keyring: (proof: string | null) => Promise<Keyring>;
}

/** How a database stands to a set. `unknown`: it never held it, being older or another one. */
export type Comparison = "same" | "newer" | "unknown";

/** Compares a database with a set. */
export async function compare(tx: Queries, standing: Standing, state: State): Promise<Comparison> {
  if (standing.version === state.version && standing.change === state.change) return "same";
  if (standing.version <= state.version) return "unknown";
  return (await holdsChange(tx, state)) ? "newer" : "unknown";
}

/** A stored set in its accepted form. @throws InvalidError this program does not take it. */
export function accepted(state: State, before: Definitions, parse: Parse): Accepted {
  const next = accept(state, before, parse);
  if ("definitions" in next) return next;
  throw refusedTogether(next, false);
}

/** Puts a set in the snapshot. @throws StorageError */
export async function keepSnapshot(options: KeeperOptions, state: State): Promise<void> {
  await writeSnapshot(options.files, snapshotPath(options.dataFolder), state);
}

type Broken = Extract<SnapshotRead, { readonly kind: "broken" }>;

/** The refusal of a broken snapshot that nothing can take the place of. */
export function brokenSnapshot(dataFolder: string, read: Broken): CorruptionError {
  const path = snapshotPath(dataFolder);
  return new CorruptionError(
    `the snapshot of the definitions is broken (${read.reason}), and the database does not hold as much: put back a good copy, or move it away to start without`,
    { path, byte: read.byte },
  );
}

/** Sets a broken snapshot aside, since the database holds all of it. */
export async function setAside(options: KeeperOptions, read: Broken): Promise<void> {
  const path = snapshotPath(options.dataFolder);
  await options.files.move(path, `${path}.broken`);
  options.warn(
    `${path} is broken (${read.reason}): set aside as ${path}.broken, made anew from the database`,
  );
}
