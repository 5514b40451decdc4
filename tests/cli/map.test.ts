/** `isthmus map explain`: by kinds without a gateway, by names of bridges with one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { TestGateway } from "../e2e/gateway.ts";
import { type TemporaryFolder, temporaryFolder } from "../temporary.ts";
import { type Ran, run } from "./run.ts";

let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(async () => await folder[Symbol.asyncDispose]());

async function explain(args: readonly string[], gateway?: TestGateway): Promise<Ran> {
  const env = gateway === undefined ? {} : { ISTHMUS_SERVER: gateway.url };
  const token = gateway === undefined ? {} : { ISTHMUS_TOKEN: gateway.token };
  return await run(["map", "explain", ...args], { folder: folder.path, env: { ...env, ...token } });
}

interface Explained {
  readonly from: object;
  readonly to: object;
  readonly fields: readonly {
    readonly field: string;
    readonly fate: string;
    readonly to: unknown;
  }[];
}

test("tells of two kinds without a gateway", async () => {
  const { stdout, exitCode } = await explain(["kafka", "rabbitmq"]);
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^FIELD +FATE +KAFKA +RABBITMQ +NOTE\n/);
  expect(stdout).toMatch(/\nkey +renamed +record key +isthmus-key\n/);
  expect(stdout).toMatch(/\ntimestampMs +coerced +record timestamp +timestamp +as seconds; /);
});

test("tells of bridges by name as they are configured, and as JSON", async () => {
  await using gateway = await TestGateway.start();
  await gateway.apply({
    bridges: {
      old: { kind: "mqtt", url: "mqtt://127.0.0.1:9", version: "3.1.1" },
      eu: { kind: "kafka", url: "127.0.0.1:9" },
    },
  });
  const { stdout, exitCode } = await explain(["eu", "old", "--json"], gateway);
  expect(exitCode).toBe(0);
  const { from, to, fields } = JSON.parse(stdout) as Explained;
  expect([from, to]).toEqual([
    { name: "eu", kind: "kafka" },
    { name: "old", kind: "mqtt" },
  ]);
  expect(fields.find(({ field }) => field === "body")).toMatchObject({ fate: "renamed" });
  expect(fields.find(({ field }) => field === "key")).toMatchObject({ fate: "lost", to: null });
  const unknown = await explain(["eu", "nowhere"], gateway);
  expect(unknown.exitCode).toBe(1);
  expect(unknown.stderr).toContain("nowhere");
}, 60_000);

test("refuses an end that the kind does not have", async () => {
  const { stderr, exitCode } = await explain(["http", "kafka"]);
  expect(exitCode).toBe(2);
  expect(stderr).toContain("http reads nothing: a hook takes requests in");
});
