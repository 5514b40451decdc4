/**
 * Brings a database to the schema that this program knows: every migration in one transaction,
 * under an advisory lock, so that several processes may start at once. Running it again does
 * nothing. A database whose schema is newer, or not ours, is left untouched and refused.
 */
import { asc, sql } from "drizzle-orm";
import { type MigrationMeta, readMigrationFiles } from "drizzle-orm/migrator";
import { bigint, type PgDatabase, type PgQueryResultHKT, text } from "drizzle-orm/pg-core";
import { isthmus } from "./tables.ts";

/** A database or a transaction in it, embedded or not. */
export type Queries = PgDatabase<PgQueryResultHKT>;

/** The schema in the database is not one that this program can work with: run another program. */
export class SchemaError extends Error {
  override get name(): string {
    return "SchemaError";
  }
}

/** Any number will do; two programs must only not choose the same one by chance. */
const lockNumber = 7_466_843_221_008;

/** Beside the tables and not among them: it has to be there before the first migration. */
const applied = isthmus.table("migrations", {
  hash: text("hash").primaryKey(),
  at: bigint("at", { mode: "number" }).notNull(),
});

/** The migrations that this program brings, oldest first. */
export function knownMigrations(): readonly MigrationMeta[] {
  return readMigrationFiles({ migrationsFolder: `${import.meta.dir}/migrations` });
}

/**
 * Applies what is missing and returns how many that were. @throws SchemaError the database holds
 * migrations that this program doesn't know; nothing was changed.
 */
export async function migrate(database: Queries): Promise<number> {
  const known = knownMigrations();
  return await database.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(${lockNumber})`);
    await tx.execute(sql`create schema if not exists ${isthmus}`);
    await tx.execute(
      sql`create table if not exists ${applied} (hash text primary key, at bigint not null unique)`,
    );
    const there = await tx.select().from(applied).orderBy(asc(applied.at));
    checkKnown(there, known);
    const missing = known.slice(there.length);
    for (const migration of missing) {
      await apply(tx, migration);
    }
    return missing.length;
  });
}

function checkKnown(
  there: readonly { readonly hash: string }[],
  known: readonly MigrationMeta[],
): void {
  const first = there.findIndex((row, index) => known[index]?.hash !== row.hash);
  if (first === -1) return;
  throw new SchemaError(
    first >= known.length
      ? `the database's schema is newer than this program (it has ${there.length} migrations, this program knows ${known.length}): run a newer version`
      : `the database's schema is of another program (its migration ${first + 1} is not known here)`,
  );
}

async function apply(tx: Queries, migration: MigrationMeta): Promise<void> {
  for (const statement of migration.sql) {
    await tx.execute(sql.raw(statement));
  }
  await tx.insert(applied).values({ hash: migration.hash, at: migration.folderMillis });
}
