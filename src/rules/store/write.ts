/**
 * Writes the stored set as rows: one accepted change, or a whole set into a database that lacks
 * it. Each function runs within the transaction that its caller opened and locked.
 */
import { getTableColumns, inArray, type SQL, sql } from "drizzle-orm";
import type { PgTable } from "drizzle-orm/pg-core";
import type { Queries } from "../../../schema/migrate.ts";
import { changes, definitions, meta, revisions, secrets, tokens } from "../../../schema/tables.ts";
import { loadState, readStanding } from "./rows.ts";
import {
  fromKey,
  keyOf,
  type State,
  type StoredDefinition,
  type StoredRevision,
  type StoredSecret,
  type StoredToken,
  type Write,
} from "./state.ts";

/** The channel on which a change is made known to the other processes. */
export const CHANGE_CHANNEL = "isthmus_definitions";

/** Rows of one insert: a statement takes at most 65,535 parameters, and a row has up to 13. */
const ROWS_MAX = 1_000;

/** Keeps the proof of the key with which this database's secrets are encrypted. */
export async function writeKeyProof(tx: Queries, keyProof: string): Promise<void> {
  await tx.update(meta).set({ keyProof });
}

/** Writes one change, and makes it known when the transaction commits. */
export async function writeChange(tx: Queries, write: Write): Promise<void> {
  const { version, change, by, why } = write;
  await tx.insert(changes).values({ version, id: change, by, why, at: new Date(write.atMs) });
  await tx.update(meta).set({ version, change });
  await insertRevisions(tx, write.revisions);
  if (write.secretDeletions.length > 0) {
    await tx.delete(secrets).where(inArray(secrets.path, [...write.secretDeletions]));
  }
  await deleteDefinitions(
    tx,
    write.revisions.filter((revision) => revision.document === null),
  );
  await upsertDefinitions(tx, write.definitions);
  await upsertSecrets(tx, write.secrets);
  await upsertTokens(tx, write.tokens);
  await tx.execute(sql`select pg_notify(${CHANGE_CHANNEL}, ${String(version)})`);
}

/**
 * Makes the database hold the set. What it held of another history is removed, what it held of
 * the same history stays.
 */
export async function fillFrom(tx: Queries, state: State, atMs: number): Promise<void> {
  const standing = await readStanding(tx);
  if (standing.version >= state.version || contradicts(await loadState(tx, ""), state)) {
    await tx.execute(sql`truncate ${revisions}, ${changes}`);
  }
  await tx.delete(secrets);
  await tx.delete(definitions);
  await tx.delete(tokens);
  await tx.delete(meta);
  const { version, change, keyProof } = state;
  await tx.insert(meta).values({ version, change, keyProof });
  if (change !== null) {
    const row = { version, id: change, by: "isthmus", why: "filled from the snapshot" };
    await tx.insert(changes).values({ ...row, at: new Date(atMs) });
  }
  await insertMissingRevisions(tx, revisionsOf(state, atMs));
  await upsertDefinitions(tx, [...state.definitions.values()]);
  await upsertSecrets(tx, [...state.secrets.values()]);
  await upsertTokens(tx, [...state.tokens.values()]);
}

/** Whether two sets hold different documents as one revision: then they are of two histories. */
function contradicts(there: State, here: State): boolean {
  const known = new Map(
    [...there.definitions.values(), ...[...there.history.values()].flat()].map((stored) => {
      return [`${keyOf(stored)}/${stored.revision}`, JSON.stringify(stored.document)];
    }),
  );
  return [...here.definitions.values(), ...[...here.history.values()].flat()].some((stored) => {
    const text = known.get(`${keyOf(stored)}/${stored.revision}`);
    return text !== undefined && text !== JSON.stringify(stored.document);
  });
}

function revisionsOf(state: State, atMs: number): StoredRevision[] {
  const { version } = state;
  const why = "filled from the snapshot";
  const standing = [...state.definitions.values()].map((stored) => ({ ...stored, version, why }));
  const deleted = [...state.gone].map(([key, revision]) => {
    const rest = { version, project: null, document: null, by: "isthmus", why, atMs };
    return { ...fromKey(key), revision, ...rest };
  });
  return [...[...state.history.values()].flat(), ...standing, ...deleted];
}

async function deleteDefinitions(tx: Queries, gone: readonly StoredRevision[]): Promise<void> {
  if (gone.length === 0) return;
  const key = sql`${definitions.kind} || '/' || ${definitions.name}`;
  await tx.delete(definitions).where(inArray(key, gone.map(keyOf)));
}

async function insertRevisions(tx: Queries, rows: readonly StoredRevision[]): Promise<void> {
  for (const part of parts(rows)) await tx.insert(revisions).values(part.map(withDate));
}

async function insertMissingRevisions(tx: Queries, rows: readonly StoredRevision[]): Promise<void> {
  for (const part of parts(rows)) {
    await tx.insert(revisions).values(part.map(withDate)).onConflictDoNothing();
  }
}

async function upsertDefinitions(tx: Queries, rows: readonly StoredDefinition[]): Promise<void> {
  const set = given(definitions, ["revision", "project", "document", "by", "at"]);
  const target = [definitions.kind, definitions.name];
  for (const part of parts(rows)) {
    const insert = tx.insert(definitions).values(part.map(withDate));
    await insert.onConflictDoUpdate({ target, set });
  }
}

async function upsertSecrets(tx: Queries, rows: readonly StoredSecret[]): Promise<void> {
  const set = given(secrets, ["kind", "name", "version", "keyId", "wrapped", "sealed", "at"]);
  for (const part of parts(rows)) {
    const insert = tx.insert(secrets).values(part.map(withDate));
    await insert.onConflictDoUpdate({ target: secrets.path, set });
  }
}

async function upsertTokens(tx: Queries, rows: readonly StoredToken[]): Promise<void> {
  const set = given(tokens, ["revoked", "revokedBy", "lastUsed"]);
  for (const part of parts(rows)) {
    const insert = tx.insert(tokens).values(part.map(fromToken));
    await insert.onConflictDoUpdate({ target: tokens.id, set });
  }
}

function parts<T>(rows: readonly T[]): T[][] {
  const count = Math.ceil(rows.length / ROWS_MAX);
  return Array.from({ length: count }, (_, index) => {
    return rows.slice(index * ROWS_MAX, (index + 1) * ROWS_MAX);
  });
}

/** The columns of an upsert, each set to what the insert brought. */
function given<Table extends PgTable>(
  table: Table,
  names: readonly (string & keyof Table["_"]["columns"])[],
): Record<string, SQL> {
  const columns = getTableColumns(table);
  return Object.fromEntries(
    names.map((name) => [name, sql`excluded.${sql.identifier(columns[name]?.name ?? name)}`]),
  );
}

function withDate<T extends { readonly atMs: number }>(row: T): Omit<T, "atMs"> & { at: Date } {
  const { atMs, ...rest } = row;
  return { ...rest, at: new Date(atMs) };
}

function fromToken(token: StoredToken): typeof tokens.$inferInsert {
  const date = (ms: number | null): Date | null => (ms === null ? null : new Date(ms));
  return {
    id: token.id,
    name: token.name,
    hash: token.hash,
    role: token.role,
    subject: token.subject,
    read: token.read,
    write: token.write,
    expires: date(token.expiresAtMs),
    created: new Date(token.createdAtMs),
    createdBy: token.createdBy,
    revoked: date(token.revokedAtMs),
    revokedBy: token.revokedBy,
    lastUsed: date(token.lastUsedAtMs),
  };
}
