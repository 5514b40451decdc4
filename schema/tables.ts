/**
 * The tables of the database: definitions with their revisions, sealed secrets, tokens.
 * One Postgres schema of our own, `isthmus`, so that a database can be shared with other programs.
 * The same tables stand in the embedded database and in Postgres; `migrations/` is made from here.
 * Messages, cursors and the audit never come here: they live in the log.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  boolean,
  check,
  foreignKey,
  index,
  integer,
  json,
  pgSchema,
  primaryKey,
  smallint,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} from "drizzle-orm/pg-core";

/** The Postgres schema that holds everything of ours. */
export const isthmus = pgSchema("isthmus");

const instant = (name: string) =>
  timestamp(name, { withTimezone: true, mode: "date", precision: 3 });
const kindCheck = sql`kind in ('bridges', 'streams', 'sources', 'hooks', 'rules', 'access')`;
const nameCheck = sql`name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'`;

/** One row: where the database stands. Locked by whoever changes anything. */
export const meta = isthmus.table(
  "meta",
  {
    id: smallint("id").primaryKey().default(1),
    /** Grows by one with each accepted change. */
    version: bigint("version", { mode: "number" }).notNull(),
    /** The change that made this version. */
    change: uuid("change"),
    /** Derived from the secret key: a process with another key is refused. */
    keyProof: text("key_proof"),
  },
  () => [check("meta_one_row", sql`id = 1`), check("meta_version", sql`version >= 0`)],
);

/** Every accepted change. A snapshot that names a change not held here is of another history. */
export const changes = isthmus.table(
  "changes",
  {
    version: bigint("version", { mode: "number" }).primaryKey(),
    id: uuid("id").notNull().unique(),
    by: text("by").notNull(),
    why: text("why"),
    at: instant("at").notNull(),
  },
  () => [check("changes_version", sql`version > 0`)],
);

/** What stands: one row a definition. */
export const definitions = isthmus.table(
  "definitions",
  {
    kind: text("kind").notNull(),
    name: text("name").notNull(),
    revision: integer("revision").notNull(),
    project: text("project"),
    /** `json`, not `jsonb`: the text is kept as written, the order of its keys and `\u0000` too. */
    document: json("document").notNull(),
    by: text("by").notNull(),
    at: instant("at").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.kind, table.name] }),
    check("definitions_kind", kindCheck),
    check("definitions_name", nameCheck),
    check("definitions_revision", sql`revision > 0`),
  ],
);

/** What ever stood, deletions included (`document` null). Rows are never changed or deleted. */
export const revisions = isthmus.table(
  "revisions",
  {
    kind: text("kind").notNull(),
    name: text("name").notNull(),
    revision: integer("revision").notNull(),
    /** Its change. No foreign key: a database rebuilt from a snapshot lacks the oldest changes. */
    version: bigint("version", { mode: "number" }).notNull(),
    project: text("project"),
    document: json("document"),
    by: text("by").notNull(),
    why: text("why"),
    at: instant("at").notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.kind, table.name, table.revision] }),
    index("revisions_version").on(table.version),
    check("revisions_kind", kindCheck),
    check("revisions_name", nameCheck),
    check("revisions_revision", sql`revision > 0`),
  ],
);

/** Secrets of documents, encrypted; a document holds `${secret:PATH}` in their place. */
export const secrets = isthmus.table(
  "secrets",
  {
    path: text("path").primaryKey(),
    kind: text("kind").notNull(),
    name: text("name").notNull(),
    version: integer("version").notNull(),
    /** The key that wraps the data key. */
    keyId: text("key_id").notNull(),
    /** nonce, wrapped data key and tag, in base64. */
    wrapped: text("wrapped").notNull(),
    /** nonce, ciphertext and tag, in base64. */
    sealed: text("sealed").notNull(),
    at: instant("at").notNull(),
  },
  (table) => [
    foreignKey({
      columns: [table.kind, table.name],
      foreignColumns: [definitions.kind, definitions.name],
    }),
    index("secrets_definition").on(table.kind, table.name),
    check("secrets_version", sql`version > 0`),
  ],
);

/** Bearer tokens, by hash. A revoked row stays: who revoked it and when. */
export const tokens = isthmus.table(
  "tokens",
  {
    id: uuid("id").primaryKey(),
    name: text("name").notNull(),
    /** SHA-256 of the token, in hex. */
    hash: text("hash").notNull().unique(),
    role: text("role"),
    subject: text("subject").notNull(),
    read: json("read").notNull(),
    write: json("write").notNull(),
    expires: instant("expires"),
    created: instant("created").notNull(),
    createdBy: text("created_by").notNull(),
    revoked: instant("revoked"),
    revokedBy: text("revoked_by"),
    /** To the hour. */
    lastUsed: instant("last_used"),
  },
  (table) => [
    uniqueIndex("tokens_name").on(table.name).where(sql`revoked is null`),
    check("tokens_name", nameCheck),
    check("tokens_hash", sql`hash ~ '^[0-9a-f]{64}$'`),
    check("tokens_role", sql`role in ('admin', 'operator', 'viewer')`),
    check(
      "tokens_role_or_grants",
      sql`role is null or (json_array_length("read") = 0 and json_array_length("write") = 0)`,
    ),
    check("tokens_revoked", sql`(revoked is null) = (revoked_by is null)`),
  ],
);

/** The gateways that share this database, each of which writes its own row again and again. */
export const nodes = isthmus.table(
  "nodes",
  {
    /** Of one process: a restart is another node. */
    id: uuid("id").primaryKey(),
    name: text("name").notNull(),
    url: text("url"),
    programVersion: text("program_version").notNull(),
    started: instant("started").notNull(),
    /** By the database's clock. */
    seen: instant("seen").notNull(),
    ready: boolean("ready").notNull(),
    definitionsVersion: bigint("definitions_version", { mode: "number" }).notNull(),
    /** The session that holds its locks, as `pg_locks` tells it. */
    backend: integer("backend").notNull(),
    /** The sources that it alone runs, by name. */
    sources: json("sources").notNull(),
  },
  (table) => [index("nodes_seen").on(table.seen)],
);
