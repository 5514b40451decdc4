/**
 * Reads the stored set from the database's rows. Each function runs within the transaction that
 * its caller opened; `write.ts` is the other direction.
 */
import { and, asc, eq, lte, notExists, sql } from "drizzle-orm";
import type { Queries } from "../../../schema/migrate.ts";
import { changes, definitions, meta, revisions, secrets, tokens } from "../../../schema/tables.ts";
import { assert } from "../../assert.ts";
import type { Grant, JsonObject, Kind } from "../document.ts";
import type { Role } from "./role-names.ts";
import {
  HISTORY_REVISIONS_MAX,
  keyOf,
  type State,
  type StoredDefinition,
  type StoredRevision,
  type StoredSecret,
  type StoredToken,
} from "./state.ts";

/** Where a database stands. */
export interface Standing {
  readonly version: number;
  readonly change: string | null;
  readonly keyProof: string | null;
}

/** Where the database stands, as this transaction sees it. */
export async function readStanding(tx: Queries): Promise<Standing> {
  return oneStanding(await tx.select().from(meta));
}

/** Whether the database takes no writes: it is a standby, or was set to read only. */
export async function isReadOnly(tx: Queries): Promise<boolean> {
  const rows = await tx
    .select({
      value: sql<boolean>`pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean`,
    })
    .from(meta);
  return rows[0]?.value === true;
}

/** As `readStanding`, and no other process changes anything until this transaction ends. */
export async function lockStanding(tx: Queries): Promise<Standing> {
  return oneStanding(await tx.select().from(meta).for("update"));
}

function oneStanding(rows: readonly Standing[]): Standing {
  const row = rows[0];
  assert(row !== undefined, "the database has its one row of meta");
  return { version: row.version, change: row.change, keyProof: row.keyProof };
}

/** Whether the set is one that this database once held: what it holds comes after it. */
export async function holdsChange(tx: Queries, state: State): Promise<boolean> {
  if (state.change === null) return true;
  const rows = await tx
    .select({ id: changes.id })
    .from(changes)
    .where(eq(changes.version, state.version));
  return rows[0]?.id === state.change;
}

/** The whole set. */
export async function loadState(tx: Queries, keyProof: string): Promise<State> {
  const standing = await readStanding(tx);
  const stored = (await tx.select().from(definitions)).map(toDefinition);
  const held = (await tx.select().from(secrets)).map(toSecret);
  const bearers = (await tx.select().from(tokens)).map(toToken);
  return {
    version: standing.version,
    change: standing.change,
    keyProof,
    definitions: new Map(stored.map((definition) => [keyOf(definition), definition])),
    gone: await loadGone(tx),
    history: await loadHistory(tx),
    secrets: new Map(held.map((secret) => [secret.path, secret])),
    tokens: new Map(bearers.map((token) => [token.id, token])),
  };
}

const standsNow = (tx: Queries) =>
  tx
    .select({ one: sql`1` })
    .from(definitions)
    .where(and(eq(definitions.kind, revisions.kind), eq(definitions.name, revisions.name)));

async function loadGone(tx: Queries): Promise<Map<string, number>> {
  const rows = await tx
    .select({
      kind: revisions.kind,
      name: revisions.name,
      revision: sql<number>`max(${revisions.revision})`.mapWith(Number),
    })
    .from(revisions)
    .where(notExists(standsNow(tx)))
    .groupBy(revisions.kind, revisions.name);
  return new Map(rows.map((row) => [`${row.kind}/${row.name}`, row.revision]));
}

async function loadHistory(tx: Queries): Promise<Map<string, readonly StoredRevision[]>> {
  const ranked = tx
    .select({
      row: sql<number>`row_number() over (partition by ${revisions.name} order by ${revisions.revision} desc)`
        .mapWith(Number)
        .as("row"),
      kind: revisions.kind,
      name: revisions.name,
      revision: revisions.revision,
      version: revisions.version,
      project: revisions.project,
      document: revisions.document,
      by: revisions.by,
      why: revisions.why,
      at: revisions.at,
    })
    .from(revisions)
    .innerJoin(
      definitions,
      and(eq(definitions.kind, revisions.kind), eq(definitions.name, revisions.name)),
    )
    .where(eq(revisions.kind, "rules"))
    .as("ranked");
  const rows = await tx
    .select()
    .from(ranked)
    .where(lte(ranked.row, HISTORY_REVISIONS_MAX))
    .orderBy(asc(ranked.name), asc(ranked.revision));
  const history = new Map<string, StoredRevision[]>();
  for (const row of rows.map(toRevision)) {
    const known = history.get(keyOf(row)) ?? [];
    // What came before a deletion belonged to another rule of the same name.
    history.set(keyOf(row), row.document === null ? [] : [...known, row]);
  }
  return history;
}

/** What ever stood under a name, newest first, deletions included. */
export async function loadRevisions(
  tx: Queries,
  kind: Kind,
  name: string,
): Promise<readonly StoredRevision[]> {
  const rows = await tx
    .select()
    .from(revisions)
    .where(and(eq(revisions.kind, kind), eq(revisions.name, name)))
    .orderBy(sql`${revisions.revision} desc`);
  return rows.map(toRevision);
}

type Row<Table extends { readonly $inferSelect: unknown }> = Table["$inferSelect"];

// The database's checks hold these columns to their types: kinds and roles to their words,
// documents and grants to what `write.ts` put there.

function toDefinition(row: Row<typeof definitions>): StoredDefinition {
  const { at, ...rest } = row;
  return {
    ...rest,
    kind: row.kind as Kind,
    document: row.document as JsonObject,
    atMs: at.getTime(),
  };
}

function toRevision(row: Row<typeof revisions>): StoredRevision {
  return {
    kind: row.kind as Kind,
    name: row.name,
    revision: row.revision,
    version: row.version,
    project: row.project,
    document: row.document as JsonObject | null,
    by: row.by,
    why: row.why,
    atMs: row.at.getTime(),
  };
}

function toSecret(row: Row<typeof secrets>): StoredSecret {
  const { at, ...rest } = row;
  return { ...rest, kind: row.kind as Kind, atMs: at.getTime() };
}

function toToken(row: Row<typeof tokens>): StoredToken {
  return {
    id: row.id,
    name: row.name,
    hash: row.hash,
    role: row.role as Role | null,
    subject: row.subject,
    read: row.read as readonly Grant[],
    write: row.write as readonly Grant[],
    expiresAtMs: row.expires?.getTime() ?? null,
    createdAtMs: row.created.getTime(),
    createdBy: row.createdBy,
    revokedAtMs: row.revoked?.getTime() ?? null,
    revokedBy: row.revokedBy,
    lastUsedAtMs: row.lastUsed?.getTime() ?? null,
  };
}
