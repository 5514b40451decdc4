/** Starting, stopping, being refused, and the two places where definitions live. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import postgres from "postgres";
import { broker } from "../brokers/broker.ts";
import { temporaryFolder } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

const PROJECT = join(import.meta.dir, "../..");

async function serve(
  environment: Readonly<Record<string, string>>,
): Promise<{ code: number; errors: string }> {
  const child = Bun.spawn([process.execPath, join(PROJECT, "src/cli/main.ts"), "serve"], {
    env: { ...process.env, ...environment },
    stdout: "ignore",
    stderr: "pipe",
  });
  const errors = await new Response(child.stderr).text();
  return { code: await child.exited, errors };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} ends it cleanly, and what it held is there at the next start`, async () => {
    await using gateway = await TestGateway.start();
    await gateway.apply({
      hooks: { in: { stream: "s" } },
      rules: { copy: { from: "s", to: { stream: "t" } } },
    });
    await fetch(`${gateway.url}/hooks/in`, { method: "POST", body: "one" });
    await gateway.drained();
    const { code, output } = await gateway.end(signal);
    expect(code).toBe(0);
    expect(output).toContain("Isthmus is ready at");
    expect(output).toContain("curl -X POST");
    await gateway.start();
    await fetch(`${gateway.url}/hooks/in`, { method: "POST", body: "two" });
    await gateway.drained();
    expect((await gateway.read("t")).map(({ body }) => body)).toEqual(["one", "two"]);
  }, 60_000);
}

test("a second process on the same data folder is refused, naming the first one's pid", async () => {
  await using gateway = await TestGateway.start();
  const { code, errors } = await serve({ ISTHMUS_DATA: gateway.dataFolder, ISTHMUS_PORT: "0" });
  expect(code).toBe(1);
  expect(errors).toContain("is in use by another isthmus process");
  expect(errors).toContain(`pid ${gateway.pid}`);
  expect(errors.trim().split("\n").length).toBe(1);
  await gateway.kill();
  await gateway.start();
}, 60_000);

test("wrong settings are one line and exit code 2", async () => {
  await using folder = await temporaryFolder();
  const cases: [Record<string, string>, string][] = [
    [{ ISTHMUS_LOG: "kafka://127.0.0.1" }, "ISTHMUS_LOG"],
    [{ ISTHMUS_PORT: "many" }, "ISTHMUS_PORT"],
    [{ DATABASE_URL: "mysql://x" }, "DATABASE_URL"],
    [{ ISTHMUS_CONFIG: "/nowhere.yaml" }, "ISTHMUS_CONFIG"],
  ];
  for (const [environment, named] of cases) {
    const { code, errors } = await serve({ ISTHMUS_DATA: folder.path, ...environment });
    expect(errors.trim().split("\n").length).toBe(1);
    expect(errors).toContain(named);
    expect(code).toBe(2);
  }
}, 60_000);

test("with DATABASE_URL definitions live in Postgres, and traffic goes on without it", async () => {
  const { url } = await broker("postgres");
  const name = `isthmus_${process.pid}_${Date.now()}`;
  const admin = postgres(url, { max: 1, onnotice: () => undefined });
  await admin.unsafe(`create database ${name}`);
  const own = new URL(url);
  own.pathname = `/${name}`;
  try {
    await using gateway = await TestGateway.start({
      DATABASE_URL: own.href,
      ISTHMUS_SECRET_KEY: "a secret key of forty-three characters long",
    });
    await gateway.apply({ hooks: { in: { stream: "s" } } });
    const reader = postgres(own.href, { max: 1 });
    const rows = await reader`select kind, name from isthmus.definitions`;
    expect(rows.map((row) => ({ ...row }))).toEqual([{ kind: "hooks", name: "in" }]);
    await reader.end();
    await gateway.end();
    await gateway.start();
    const answer = await fetch(`${gateway.url}/hooks/in`, { method: "POST", body: "x" });
    expect(answer.status).toBe(202);
    // The database goes away for good: changes are refused in plain words, intake goes on.
    await admin.unsafe(`drop database ${name} with (force)`);
    const refused = await gateway.fetch("/api/hooks/other", {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ stream: "s" }),
    });
    expect(refused.status).toBe(503);
    expect(await refused.json()).toMatchObject({ code: "database-unavailable" });
    const still = await fetch(`${gateway.url}/hooks/in`, { method: "POST", body: "y" });
    expect(still.status).toBe(202);
  } finally {
    await admin.end();
  }
}, 120_000);
