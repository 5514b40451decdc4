/**
 * One session with Postgres, for the locks that belong to it: a connection that is never changed
 * for another in silence. When it is lost, its locks are, and whoever uses it opens a new one.
 */
import { enter, type Queries } from "./node-rows.ts";

/** How long the opening may take, seconds as the client counts them. */
const CONNECT_SECONDS_MAX = 5;

/** An open session. */
export interface Session {
  readonly queries: Queries;
  /** Its number on the server. */
  readonly backend: number;
  isLost(): boolean;
  /** Closes it, whatever is under way. */
  end(): Promise<void>;
}

/** Opens a session. Throws what the driver throws. */
export async function openSession(url: string): Promise<Session> {
  const { default: postgres } = await import("postgres");
  const { drizzle } = await import("drizzle-orm/postgres-js");
  let isLost = false;
  const client = postgres(url, {
    max: 1,
    max_lifetime: null,
    connect_timeout: CONNECT_SECONDS_MAX,
    // Statements by name would not survive a pooler between us and the database.
    prepare: false,
    // The client asks for them by itself, and what it asks fails unheard when the line is cut.
    fetch_types: false,
    onnotice: () => undefined,
    onclose: () => {
      isLost = true;
    },
    connection: { application_name: "isthmus locks" },
  });
  const queries = drizzle(client);
  const end = async (): Promise<void> => await client.end({ timeout: 0 });
  try {
    const backend = await enter(queries);
    return { queries, backend, isLost: () => isLost, end };
  } catch (error) {
    await end();
    throw error;
  }
}
