CREATE TABLE "isthmus"."nodes" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"url" text,
	"program_version" text NOT NULL,
	"started" timestamp (3) with time zone NOT NULL,
	"seen" timestamp (3) with time zone NOT NULL,
	"ready" boolean NOT NULL,
	"definitions_version" bigint NOT NULL,
	"backend" integer NOT NULL,
	"sources" json NOT NULL
);
--> statement-breakpoint
CREATE INDEX "nodes_seen" ON "isthmus"."nodes" USING btree ("seen");