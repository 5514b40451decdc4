/**
 * What the gateways on one database tell each other: the row of each, and the advisory locks by
 * which one of them alone runs a source. A lock belongs to the session that took it and goes with
 * it, so each statement here stands by itself and none relies on an earlier one.
 */
import { asc, eq, getTableColumns, type SQL, sql } from "drizzle-orm";
import type { PostgresJsDatabase } from "drizzle-orm/postgres-js";
import { nodes } from "../../../schema/tables.ts";

/** One session: its statements follow each other on one connection. */
export type Queries = PostgresJsDatabase;

/** Rows of gateways that have not been seen for so long are removed by the others. Seconds. */
const FORGOTTEN_SECONDS = 3_600;

/** One of our own name that is silent for so long was our last life. Seconds. */
const SILENT_SECONDS = 20;

/** One gateway, as it tells of itself. */
export interface NodeRow {
  readonly id: string;
  readonly name: string;
  readonly url: string | null;
  readonly version: string;
  readonly startedAtMs: number;
  readonly ready: boolean;
  readonly definitionsVersion: number;
  /** The sources that it alone runs. */
  readonly sources: readonly string[];
  /** The session that holds its locks. */
  readonly backend: number;
  /** How long ago it was last heard of, by the database's clock. Milliseconds. */
  readonly silentMs: number;
}

/** A source that one gateway alone may run. */
export interface Asked {
  readonly name: string;
  /** Whether to take the lock if nobody has it. */
  readonly tries: boolean;
}

/** How a source's lock stands. */
export interface LockStanding {
  readonly name: string;
  readonly isHeld: boolean;
  /** The session that has it when this one does not; null: not known yet. */
  readonly holder: number | null;
}

const key = (name: SQL): SQL => sql`hashtextextended('isthmus source ' || ${name}, 0)`;

/** The locks of that key that are held, in this database. */
const lockOf = (alias: SQL): SQL => sql`pg_locks as ${alias}
  on ${alias}.locktype = 'advisory' and ${alias}.granted and ${alias}.objsubid = 1
  and ${alias}.database = (select oid from pg_database where datname = current_database())
  and ${alias}.classid::bigint = (asked.key >> 32 & 4294967295)
  and ${alias}.objid::bigint = (asked.key & 4294967295)`;

/** The number of this session, whose server notices soon when our machine is gone. */
export async function enter(queries: Queries): Promise<number> {
  const rows = await queries.execute<{ backend: number }>(sql`select pg_backend_pid() as backend,
    set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false)`);
  return [...rows].at(0)?.backend ?? 0;
}

/** Takes what nobody has, and tells how each stands. What this session has it keeps. */
export async function takeLocks(
  queries: Queries,
  asked: readonly Asked[],
): Promise<LockStanding[]> {
  const list = JSON.stringify(asked.map(({ name, tries }) => ({ name, tries })));
  const rows = await queries.execute<{ name: string; held: boolean; holder: number | null }>(sql`
    select asked.name, other.pid as holder, case
      when own.pid is not null then true
      when asked.tries then pg_try_advisory_lock(asked.key)
      else false end as held
    from (select name, tries, ${key(sql`name`)} as key
      from json_to_recordset(${list}::json) as given(name text, tries boolean)) as asked
    left join ${lockOf(sql`own`)} and own.pid = pg_backend_pid()
    left join ${lockOf(sql`other`)} and other.pid <> pg_backend_pid()`);
  return [...rows].map(({ name, held, holder }) => ({ name, isHeld: held, holder }));
}

/** Gives locks back; those that are not held are passed over. */
export async function giveLocks(queries: Queries, names: readonly string[]): Promise<void> {
  await queries.execute(sql`
    select pg_advisory_unlock(asked.key)
    from (select ${key(sql`name`)} as key
      from json_array_elements_text(${JSON.stringify(names)}::json) as given(name)) as asked
    join ${lockOf(sql`own`)} and own.pid = pg_backend_pid()`);
}

/** Ends a session of our own that the server has not missed yet. */
export async function endSession(queries: Queries, backend: number): Promise<void> {
  await queries.execute(sql`select pg_terminate_backend(${backend})`);
}

/** Tells of this gateway, and forgets those that are long gone. */
export async function tell(queries: Queries, row: Omit<NodeRow, "silentMs">): Promise<void> {
  const { id, version, startedAtMs, ...same } = row;
  const told = {
    ...same,
    programVersion: version,
    started: new Date(startedAtMs),
    seen: sql`now()`,
  };
  await queries
    .insert(nodes)
    .values({ id, ...told })
    .onConflictDoUpdate({ target: nodes.id, set: told });
  await queries
    .delete(nodes)
    .where(sql`${nodes.seen} < now() - make_interval(secs => ${FORGOTTEN_SECONDS}) or (
      ${nodes.name} = ${row.name} and ${nodes.seen} < now() - make_interval(secs => ${SILENT_SECONDS}))`);
}

/** Takes this gateway's row away. */
export async function leave(queries: Queries, id: string): Promise<void> {
  await queries.delete(nodes).where(eq(nodes.id, id));
}

/** Every gateway that was heard of lately, this one too, the longest running first. */
export async function listNodes(queries: Queries): Promise<NodeRow[]> {
  const rows = await queries
    .select({
      ...getTableColumns(nodes),
      silentMs: sql<number>`extract(epoch from now() - ${nodes.seen}) * 1000`.mapWith(Number),
    })
    .from(nodes)
    .orderBy(asc(nodes.started));
  return rows.map(({ programVersion, started, seen: _seen, sources, ...row }) => ({
    ...row,
    version: programVersion,
    startedAtMs: started.getTime(),
    sources: Array.isArray(sources) ? sources.map(String) : [],
    silentMs: Math.max(0, Math.round(row.silentMs)),
  }));
}
