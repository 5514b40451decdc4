/**
 * How drizzle-kit makes `migrations/` from `tables.ts`: `drizzle-kit generate --config
 * schema/drizzle.config.ts`.
 */
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./schema/tables.ts",
  out: "./schema/migrations",
});
