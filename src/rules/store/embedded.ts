/**
 * The embedded Postgres: opened when a transaction needs it, closed when idle, since it costs
 * some 300 MB while open. It neither syncs its files nor locks its folder: the snapshot makes up
 * for the first, the data folder's lock for the second. A folder that doesn't open is set aside
 * and filled anew from the snapshot, never removed.
 */
import type { Queries } from "../../../schema/migrate.ts";
import { unpackPrepared } from "../../../schema/prepared.ts";
import type { Clock } from "../../clock.ts";
import { DatabaseError, errorText, GatewayError } from "../../errors.ts";
import {
  type Database,
  databaseError,
  migrateOrRefuse,
  READ_ONLY,
  RefusedError,
  sqlState,
} from "./database.ts";
import type { Files } from "./files.ts";

/** How to open the embedded database. */
export interface EmbeddedOptions {
  /** Its folder, within the locked data folder. */
  readonly folder: string;
  readonly files: Files;
  readonly clock: Clock;
  /** Closed after so long without a transaction, milliseconds. */
  readonly idleMs: number;
  readonly warn: (line: string) => void;
}

interface EmbeddedClient {
  readonly queries: Queries;
  close(): Promise<void>;
}

/** SQLSTATEs that say that the files themselves are broken. */
const brokenStates: ReadonlySet<string> = new Set(["XX001", "XX002", "58P01"]);

/** The embedded Postgres of one data folder. */
export class EmbeddedDatabase implements Database {
  readonly #options: EmbeddedOptions;
  #client: Promise<EmbeddedClient> | null = null;
  #users = 0;
  /** Ends the wait that would close the database. */
  #idle = new AbortController();
  #idleWait: Promise<void> = Promise.resolve();
  /** The closing of earlier clients: two never have the folder open at once. */
  #closing: Promise<void> = Promise.resolve();
  #mayReplace = false;
  #isBroken = false;

  constructor(options: EmbeddedOptions) {
    this.#options = options;
  }

  /** From here on a folder that doesn't open is replaced: a snapshot holds all that counts. */
  allowReplacing(): void {
    this.#mayReplace = true;
  }

  async transaction<T>(
    work: (tx: Queries) => Promise<T>,
    mode: "read" | "write" = "write",
  ): Promise<T> {
    this.#idle.abort();
    this.#users += 1;
    this.#client ??= this.#open(this.#closing);
    const opening = this.#client;
    try {
      const client = await opening;
      return await client.queries.transaction(work, mode === "read" ? READ_ONLY : undefined);
    } catch (error) {
      if (error instanceof GatewayError && !(error instanceof DatabaseError)) throw error;
      this.#isBroken ||= brokenStates.has(sqlState(error));
      this.#drop(opening);
      throw databaseError(error, "");
    } finally {
      this.#users -= 1;
      if (this.#users === 0) this.#closeWhenIdle();
    }
  }

  async #open(closed: Promise<void>): Promise<EmbeddedClient> {
    await closed;
    const { folder, files, warn } = this.#options;
    if (await files.exists(folder)) {
      const opened = this.#isBroken ? "its files are broken" : await tryFolder(folder);
      if (typeof opened !== "string") return opened;
      if (!this.#mayReplace) throw new DatabaseError(`${folder} can't be opened: ${opened}`);
      const aside = `${folder}.broken`;
      await files.move(folder, aside);
      warn(
        `${folder} can't be opened (${opened}): set aside as ${aside}, made anew from the snapshot`,
      );
    }
    this.#isBroken = false;
    await makeFolder(folder, files);
    return await openFolder(folder);
  }

  #closeWhenIdle(): void {
    const idle = new AbortController();
    this.#idle = idle;
    const { clock, idleMs } = this.#options;
    this.#idleWait = clock.sleep(idleMs, idle.signal).then(() => {
      if (!idle.signal.aborted && this.#client !== null) this.#drop(this.#client);
    });
  }

  #drop(opening: Promise<EmbeddedClient>): void {
    if (this.#client !== opening) return;
    this.#client = null;
    const close = opening.then(
      async (client) => await client.close(),
      // What never opened has nothing to close; its caller has been told.
      () => undefined,
    );
    this.#closing = close.catch((error: unknown) => {
      this.#options.warn(`the embedded database did not close cleanly: ${errorText(error)}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#idle.abort();
    await this.#idleWait;
    if (this.#client !== null) this.#drop(this.#client);
    await this.#closing;
  }
}

/** The opened folder, or why it doesn't open. @throws RefusedError it opens and is not for us. */
async function tryFolder(folder: string): Promise<EmbeddedClient | string> {
  try {
    return await openFolder(folder);
  } catch (error) {
    if (error instanceof RefusedError) throw error;
    return errorText(error);
  }
}

async function openFolder(folder: string): Promise<EmbeddedClient> {
  const { PGlite } = await import("@electric-sql/pglite");
  const { drizzle } = await import("drizzle-orm/pglite");
  const client = await PGlite.create(folder);
  const queries = drizzle(client);
  try {
    await migrateOrRefuse(queries);
  } catch (error) {
    await client.close();
    throw error;
  }
  return { queries, close: async () => await client.close() };
}

/** Unpacks the prepared folder beside its place, so that a crash leaves no half of one there. */
async function makeFolder(folder: string, files: Files): Promise<void> {
  const spare = `${folder}.tmp`;
  await files.remove(spare);
  await files.makeFolder(spare);
  try {
    await unpackPrepared(spare);
  } catch (error) {
    // On a full disk the log needs the room.
    await files.remove(spare);
    throw error;
  }
  await files.move(spare, folder);
}
