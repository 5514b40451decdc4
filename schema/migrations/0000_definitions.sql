CREATE SCHEMA IF NOT EXISTS "isthmus";
--> statement-breakpoint
CREATE TABLE "isthmus"."changes" (
	"version" bigint PRIMARY KEY NOT NULL,
	"id" uuid NOT NULL,
	"by" text NOT NULL,
	"why" text,
	"at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "changes_id_unique" UNIQUE("id"),
	CONSTRAINT "changes_version" CHECK (version > 0)
);
--> statement-breakpoint
CREATE TABLE "isthmus"."definitions" (
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"revision" integer NOT NULL,
	"project" text,
	"document" json NOT NULL,
	"by" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "definitions_kind_name_pk" PRIMARY KEY("kind","name"),
	CONSTRAINT "definitions_kind" CHECK (kind in ('bridges', 'streams', 'sources', 'hooks', 'rules', 'access')),
	CONSTRAINT "definitions_name" CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
	CONSTRAINT "definitions_revision" CHECK (revision > 0)
);
--> statement-breakpoint
CREATE TABLE "isthmus"."meta" (
	"id" smallint PRIMARY KEY DEFAULT 1 NOT NULL,
	"version" bigint NOT NULL,
	"change" uuid,
	"key_proof" text,
	CONSTRAINT "meta_one_row" CHECK (id = 1),
	CONSTRAINT "meta_version" CHECK (version >= 0)
);
--> statement-breakpoint
CREATE TABLE "isthmus"."revisions" (
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"revision" integer NOT NULL,
	"version" bigint NOT NULL,
	"project" text,
	"document" json,
	"by" text NOT NULL,
	"why" text,
	"at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "revisions_kind_name_revision_pk" PRIMARY KEY("kind","name","revision"),
	CONSTRAINT "revisions_kind" CHECK (kind in ('bridges', 'streams', 'sources', 'hooks', 'rules', 'access')),
	CONSTRAINT "revisions_name" CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
	CONSTRAINT "revisions_revision" CHECK (revision > 0)
);
--> statement-breakpoint
CREATE TABLE "isthmus"."secrets" (
	"path" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"version" integer NOT NULL,
	"key_id" text NOT NULL,
	"wrapped" text NOT NULL,
	"sealed" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "secrets_version" CHECK (version > 0)
);
--> statement-breakpoint
CREATE TABLE "isthmus"."tokens" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"hash" text NOT NULL,
	"role" text,
	"subject" text NOT NULL,
	"read" json NOT NULL,
	"write" json NOT NULL,
	"expires" timestamp (3) with time zone,
	"created" timestamp (3) with time zone NOT NULL,
	"created_by" text NOT NULL,
	"revoked" timestamp (3) with time zone,
	"revoked_by" text,
	"last_used" timestamp (3) with time zone,
	CONSTRAINT "tokens_hash_unique" UNIQUE("hash"),
	CONSTRAINT "tokens_name" CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
	CONSTRAINT "tokens_hash" CHECK (hash ~ '^[0-9a-f]{64}$'),
	CONSTRAINT "tokens_role" CHECK (role in ('admin', 'operator', 'viewer')),
	CONSTRAINT "tokens_role_or_grants" CHECK (role is null or (json_array_length("read") = 0 and json_array_length("write") = 0)),
	CONSTRAINT "tokens_revoked" CHECK ((revoked is null) = (revoked_by is null))
);
--> statement-breakpoint
ALTER TABLE "isthmus"."secrets" ADD CONSTRAINT "secrets_kind_name_definitions_kind_name_fk" FOREIGN KEY ("kind","name") REFERENCES "isthmus"."definitions"("kind","name") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "revisions_version" ON "isthmus"."revisions" USING btree ("version");--> statement-breakpoint
CREATE INDEX "secrets_definition" ON "isthmus"."secrets" USING btree ("kind","name");--> statement-breakpoint
CREATE UNIQUE INDEX "tokens_name" ON "isthmus"."tokens" USING btree ("name") WHERE revoked is null;