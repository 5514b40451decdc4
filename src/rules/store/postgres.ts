/**
 * Postgres as the definitions' database. After any failure the client is dropped and the next
 * transaction connects anew, so nothing stays half open and a database that is back is used at
 * once. Connections of their own bring notices of what other processes changed.
 */
import { sql } from "drizzle-orm";
import type { Queries } from "../../../schema/migrate.ts";
import type { Clock } from "../../clock.ts";
import { DatabaseError, GatewayError, InvalidError } from "../../errors.ts";
import { type Database, databaseError, migrateOrRefuse, READ_ONLY } from "./database.ts";

/** A transaction that has had no answer for so long has lost its database, milliseconds. */
const TRANSACTION_MS_MAX = 10_000;
/** A process that stops in the midst of one gives up its locks after this, milliseconds. */
const TRANSACTION_IDLE_MS_MAX = 15_000;
/** The same for a connection that is being opened, seconds as the client counts them. */
const CONNECT_SECONDS_MAX = 5;
/** Changes come one after another; the others are readers. */
const CONNECTIONS_MAX = 3;

/** Said to the server as well, for it may go on after this side has given up. */
const bounded = sql`select
  set_config('statement_timeout', ${String(TRANSACTION_MS_MAX)}, true),
  set_config('idle_in_transaction_session_timeout', ${String(TRANSACTION_IDLE_MS_MAX)}, true)`;

/** How to reach Postgres. */
export interface PostgresOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly channel: string;
  /** Called when another process has told of a change; may be called without one. */
  readonly onNotice: () => void;
}

interface PostgresClient {
  readonly queries: Queries;
  /** Resolves when the schema is right and notices arrive. */
  readonly ready: Promise<void>;
  end(): Promise<void>;
}

/** Postgres by its URL. Connects when first used. */
export class PostgresDatabase implements Database {
  readonly #options: PostgresOptions;
  #client: Promise<PostgresClient> | null = null;
  /** Clients on their way out; awaited when this one is disposed of. */
  readonly #ending = new Set<Promise<void>>();
  /** Kept out of every error's text. */
  readonly #password: string;

  /** @throws InvalidError the URL is none of Postgres. */
  constructor(options: PostgresOptions) {
    this.#options = options;
    this.#password = passwordOf(options.url);
  }

  async transaction<T>(
    work: (tx: Queries) => Promise<T>,
    mode: "read" | "write" = "write",
  ): Promise<T> {
    this.#client ??= connect(this.#options);
    const client = this.#client;
    const done = new AbortController();
    try {
      return await Promise.race([this.#run(client, work, mode), this.#late(done.signal)]);
    } catch (error) {
      if (error instanceof GatewayError && !(error instanceof DatabaseError)) throw error;
      this.#drop(client);
      throw databaseError(error, this.#password);
    } finally {
      done.abort();
    }
  }

  async #run<T>(
    opening: Promise<PostgresClient>,
    work: (tx: Queries) => Promise<T>,
    mode: "read" | "write",
  ): Promise<T> {
    const client = await opening;
    await client.ready;
    return await client.queries.transaction(
      async (tx) => {
        await tx.execute(bounded);
        return await work(tx);
      },
      mode === "read" ? READ_ONLY : undefined,
    );
  }

  async #late(done: AbortSignal): Promise<never> {
    await this.#options.clock.sleep(TRANSACTION_MS_MAX, done);
    throw new DatabaseError(`the database has not answered for ${TRANSACTION_MS_MAX / 1_000} s`);
  }

  #drop(opening: Promise<PostgresClient>): void {
    if (this.#client !== opening) return;
    this.#client = null;
    const ending = opening
      .then(async (client) => await client.end())
      // A client that could not even be made has nothing to end.
      .catch(() => undefined)
      .finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#client !== null) this.#drop(this.#client);
    await Promise.all(this.#ending);
  }
}

/** What must not be shown of a URL. @throws InvalidError it is none of Postgres. */
export function passwordOf(url: string): string {
  const parsed = URL.parse(url);
  if (parsed === null || !/^postgres(ql)?:$/.test(parsed.protocol)) {
    throw new InvalidError(
      "DATABASE_URL is not a Postgres URL: postgres://USER:PASSWORD@HOST/NAME",
    );
  }
  return decodeURIComponent(parsed.password);
}

async function connect(options: PostgresOptions): Promise<PostgresClient> {
  const { default: postgres } = await import("postgres");
  const { drizzle } = await import("drizzle-orm/postgres-js");
  const client = postgres(options.url, {
    max: CONNECTIONS_MAX,
    connect_timeout: CONNECT_SECONDS_MAX,
    // Statements by name would not survive a pooler between us and the database.
    prepare: false,
    // The client asks for them by itself, and what it asks fails unheard when the line is cut.
    fetch_types: false,
    onnotice: () => undefined,
    connection: { application_name: "isthmus" },
  });
  const queries = drizzle(client);
  const prepare = async (): Promise<void> => {
    await migrateOrRefuse(queries);
    await client.listen(options.channel, options.onNotice);
  };
  const ready = prepare();
  // Every transaction waits for `ready` and is told; before the first does, it is no stray failure.
  ready.catch(() => undefined);
  return { queries, ready, end: async () => await client.end({ timeout: 0 }) };
}
