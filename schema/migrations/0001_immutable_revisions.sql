INSERT INTO "isthmus"."meta" ("id", "version") VALUES (1, 0);
--> statement-breakpoint
CREATE FUNCTION "isthmus"."refuse_change"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'rows of %.% are never changed', TG_TABLE_SCHEMA, TG_TABLE_NAME;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "revisions_immutable" BEFORE UPDATE OR DELETE ON "isthmus"."revisions"
	FOR EACH ROW EXECUTE FUNCTION "isthmus"."refuse_change"();
--> statement-breakpoint
CREATE TRIGGER "changes_immutable" BEFORE UPDATE OR DELETE ON "isthmus"."changes"
	FOR EACH ROW EXECUTE FUNCTION "isthmus"."refuse_change"();
--> statement-breakpoint
CREATE FUNCTION "isthmus"."refuse_older"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.version < OLD.version THEN
		RAISE EXCEPTION 'version % is older than %', NEW.version, OLD.version;
	END IF;
	RETURN NEW;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "meta_version_grows" BEFORE UPDATE ON "isthmus"."meta"
	FOR EACH ROW EXECUTE FUNCTION "isthmus"."refuse_older"();
