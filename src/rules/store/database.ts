/**
 * The database behind the definitions: one port with two forms, `postgres.ts` and `embedded.ts`.
 * Both lend transactions on a database whose schema has been brought up to date. Every failure of
 * the database comes out as DatabaseError; what the caller's own work throws passes through.
 */
import { DrizzleQueryError } from "drizzle-orm/errors";
import { migrate, type Queries, SchemaError } from "../../../schema/migrate.ts";
import { DatabaseError, errorText } from "../../errors.ts";

/** One transaction at a time is lent out; all of it is committed, or nothing. */
export interface Database extends AsyncDisposable {
  /**
   * Runs `work` in a transaction; `read` sees one moment and changes nothing.
   * @throws DatabaseError nothing was committed, or (on a lost connection) it can't be known.
   */
  transaction<T>(work: (tx: Queries) => Promise<T>, mode?: "read" | "write"): Promise<T>;
}

/** How a reading transaction is opened. */
export const READ_ONLY = { isolationLevel: "repeatable read", accessMode: "read only" } as const;

/** What a write meets in a database that takes none: a standby, or one set to read only. */
const READ_ONLY_STATE = "25006";
/** How that is told, whether a write met it or a look found it. */
export const READ_ONLY_TEXT = "the database can only be read at the moment";

/** The database answers and must not be used: another schema, another key, another history. */
export class RefusedError extends DatabaseError {}

/** Brings the schema up to date. @throws RefusedError it is newer than this program. */
export async function migrateOrRefuse(queries: Queries): Promise<void> {
  try {
    await migrate(queries);
  } catch (error) {
    if (error instanceof SchemaError) throw new RefusedError(error.message, { cause: error });
    throw error;
  }
}

/** A database's failure as ours. The statement and its values are left out, so is `secret`. */
export function databaseError(error: unknown, secret: string): DatabaseError {
  if (error instanceof DatabaseError) return error;
  const cause = rootCause(error);
  if (sqlState(error) === READ_ONLY_STATE) return new DatabaseError(READ_ONLY_TEXT, { cause });
  const text = errorText(cause);
  const shown = secret === "" ? text : text.replaceAll(secret, "…");
  return new DatabaseError(`the database failed: ${shown}`, { cause });
}

/** Drizzle wraps what the driver threw, and quotes the statement with all its values. */
function rootCause(error: unknown): unknown {
  let cause = error;
  while (cause instanceof DrizzleQueryError && cause.cause !== undefined) cause = cause.cause;
  return cause;
}

/** The SQLSTATE of a failure, or an empty text. */
export function sqlState(error: unknown): string {
  const cause = rootCause(error);
  return cause instanceof Error && "code" in cause ? String(cause.code) : "";
}
