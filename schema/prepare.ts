/**
 * Makes `prepared.tar.zst` anew: `bun schema/prepare.ts`, after a migration was added or the
 * embedded database was upgraded. Takes several seconds and about 1.2 GB of memory.
 */
import { PGlite } from "@electric-sql/pglite";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/pglite";
import { migrate } from "./migrate.ts";
import { preparedPath } from "./prepared.ts";

/** Zstandard's 19 halves what gzip leaves; it costs seconds here and nothing when it is read. */
const compressionLevel = 19;

const client = await PGlite.create();
const database = drizzle(client);
await migrate(database);
// Nobody makes databases from these, and without them the folder has a third of the files.
await database.execute(sql`update pg_database set datistemplate = false, datallowconn = true`);
await database.execute(sql`drop database template0`);
await database.execute(sql`drop database template1`);
await database.execute(sql`checkpoint`);
const tar = await client.dumpDataDir("none");
await client.close();
await Bun.write(
  preparedPath,
  await Bun.zstdCompress(await tar.bytes(), { level: compressionLevel }),
);
