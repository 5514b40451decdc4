/** The migrations, on both databases, and the prepared folder that holds them applied. */
import { describe, expect, test } from "bun:test";
import { PGlite } from "@electric-sql/pglite";
import { sql } from "drizzle-orm";
import { drizzle as embedded } from "drizzle-orm/pglite";
import { drizzle } from "drizzle-orm/postgres-js";
import { knownMigrations, migrate, SchemaError } from "../../schema/migrate.ts";
import { unpackPrepared } from "../../schema/prepared.ts";
import { definitions } from "../../schema/tables.ts";
import { KINDS } from "../../src/rules/document.ts";
import { ROLES } from "../../src/rules/store/role-names.ts";
import { missingBroker } from "../brokers/broker.ts";
import { connection, ownDatabase } from "../rules/store/opened.ts";
import { temporaryFolder } from "../temporary.ts";

const count = knownMigrations().length;

/** Every column and check, as the catalogue tells them. */
const catalogue = sql`
  select table_name, column_name, data_type, is_nullable from information_schema.columns
  where table_schema = 'isthmus' order by 1, 2`;

describe.skipIf(missingBroker("postgres") !== null)("migrations on Postgres", () => {
  test("are applied once, however often and by however many processes at once", async () => {
    const url = await ownDatabase();
    await using stack = new AsyncDisposableStack();
    const applied = await Promise.all(
      [1, 2, 3].map(async () => await migrate(drizzle(stack.use(connection(url)).sql))),
    );
    expect(applied.toSorted((left, right) => left - right)).toEqual([0, 0, count]);
  });

  test("leave a database with a newer schema as it is and refuse it in one line", async () => {
    await using there = connection(await ownDatabase());
    const database = drizzle(there.sql);
    await migrate(database);
    await there.sql`insert into isthmus.migrations values ('of tomorrow', ${2 ** 50})`;
    const failure = await migrate(database).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(SchemaError);
    expect(String(failure)).toMatch(/newer than this program.*run a newer version$/);
    await there.sql`update isthmus.migrations set hash = 'another' where hash <> 'of tomorrow'
      and at = (select min(at) from isthmus.migrations)`;
    await expect(migrate(database)).rejects.toThrow("of another program");
  });

  test("let nobody change a revision, take the version back, or store an unknown kind", async () => {
    await using there = connection(await ownDatabase());
    const database = drizzle(there.sql);
    await migrate(database);
    await there.sql`update isthmus.meta set version = 3`;
    await expect(there.sql`update isthmus.meta set version = 2`.execute()).rejects.toThrow("older");
    await there.sql`insert into isthmus.revisions values
      ('rules', 'a', 1, 1, null, '{}', 'test', null, now())`;
    for (const change of [
      "update isthmus.revisions set by = 'b'",
      "delete from isthmus.revisions",
    ]) {
      await expect(there.sql.unsafe(change).execute()).rejects.toThrow("never changed");
    }
    const row = { revision: 1, document: {}, by: "test", at: new Date() };
    for (const kind of KINDS)
      await database.insert(definitions).values({ ...row, kind, name: "a" });
    for (const wrong of [
      { kind: "topics", name: "a" },
      { kind: "rules", name: "../a" },
    ]) {
      const failure = await database
        .insert(definitions)
        .values({ ...row, ...wrong })
        .catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(Error);
    }
    const token = (role: string, index: number) => there.sql`insert into isthmus.tokens
      (id, name, hash, role, subject, read, write, created, created_by) values (gen_random_uuid(),
      ${role}, ${String(index).padStart(64, "0")}, ${role}, 's', '[]', '[]', now(), 'test')`;
    for (const [index, role] of ROLES.entries()) await token(role, index);
    await expect(token("root", ROLES.length).execute()).rejects.toThrow("tokens_role");
  });
});

describe("the prepared folder", () => {
  test("holds exactly the schema that the migrations make", async () => {
    await using folder = await temporaryFolder("prepared");
    await unpackPrepared(folder.path);
    const prepared = await PGlite.create(folder.path);
    try {
      expect(await migrate(embedded(prepared))).toBe(0);
      const { rows } = await embedded(prepared).execute(catalogue);
      if (missingBroker("postgres") !== null) return;
      await using there = connection(await ownDatabase());
      await migrate(drizzle(there.sql));
      expect(rows).toEqual([...(await drizzle(there.sql).execute(catalogue))]);
    } finally {
      await prepared.close();
    }
  });
});
