/** `isthmus doctor` and the test of a bridge, against real brokers and what is wrong with them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { broker, missingBroker } from "../brokers/broker.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, type TemporaryFolder, temporaryFolder } from "../temporary.ts";
import { type Ran, run } from "./run.ts";

const missing = missingBroker("amqp");

interface Findings {
  readonly ok: boolean;
  readonly warnings: number;
  readonly findings: readonly {
    readonly what: string;
    readonly ok: boolean;
    readonly warning?: true;
    readonly detail: string | null;
  }[];
}

let folder: TemporaryFolder;
let gateway: TestGateway;

beforeAll(async () => {
  folder = await temporaryFolder("doctor");
  gateway = await TestGateway.start();
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

async function doctor(...args: readonly string[]): Promise<Ran> {
  const env = { ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  return await run(["doctor", ...args], { folder: folder.path, env });
}

async function tried(bridge: string): Promise<Findings> {
  return JSON.parse((await doctor(bridge, "--json")).stdout) as Findings;
}

test("a gateway with nothing wrong is told so", async () => {
  const { exitCode, stdout, stderr } = await doctor();
  expect([exitCode, stderr]).toEqual([0, ""]);
  expect(stdout).toBe("ok     gateway: ready\n");
});

test("a bridge that is not there is an error of its own", async () => {
  const { exitCode, stderr } = await doctor("nowhere");
  expect(exitCode).toBe(1);
  expect(stderr).toContain("there is no such bridge");
});

test("a hook that lets anyone send is a warning for as long as it stands, and no fault", async () => {
  const detail = (name: string) =>
    `hook ${name} is not verified: whoever knows its address can send to it`;
  const verified = { scheme: "github", secret: "s" };
  const warned = await gateway.json<{ warnings: string[] }>("/api/apply", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      hooks: {
        bare: { stream: "s" },
        none: { stream: "s", verify: { scheme: "none" } },
        closed: { stream: "s", verify: verified },
      },
    }),
  });
  expect(warned.warnings).toEqual([detail("bare"), detail("none")]);
  const { exitCode, stdout, stderr } = await doctor();
  expect([exitCode, stderr]).toEqual([0, ""]);
  expect(stdout.split("\n")).toEqual([
    "ok     gateway: ready",
    `WARN   hook bare: ${detail("bare")}`,
    `WARN   hook none: ${detail("none")}`,
    "",
  ]);
  const found = JSON.parse((await doctor("--json")).stdout) as Findings;
  expect([found.ok, found.warnings]).toEqual([true, 2]);
  expect(found.findings.map(({ ok, warning }) => [ok, warning ?? false])).toEqual([
    [true, false],
    [true, true],
    [true, true],
  ]);
  // Whoever asks for readiness needs no token, and is not told which door is open.
  expect(await (await fetch(`${gateway.url}/health/ready`)).text()).not.toContain("verified");
  for (const name of ["bare", "none"]) {
    await gateway.apply({ hooks: { [name]: { stream: "s", verify: verified } } });
  }
  expect((await doctor()).stdout).toBe("ok     gateway: ready\n");
});

test.skipIf(missing !== null)(
  `tells a refused connection, an unknown host, a wrong login and a missing place apart${missing === null ? "" : `: ${missing}`}`,
  async () => {
    const url = new URL((await broker("amqp")).url);
    const wrongLogin = new URL(url);
    wrongLogin.password = "not-it";
    const free = await freePort();
    await gateway.apply({
      bridges: {
        rabbit: { kind: "amqp", url: url.href },
        login: { kind: "amqp", url: wrongLogin.href },
        closed: { kind: "amqp", url: `amqp://127.0.0.1:${free}` },
        unknown: { kind: "mqtt", url: "mqtt://nobody.invalid:1883" },
      },
      rules: {
        there: { from: "a", to: { bridge: "rabbit", exchange: "amq.topic", routingKey: "a" } },
        missing: { from: "a", to: { bridge: "rabbit", queue: `missing-${process.pid}` } },
        made: { from: "a", to: { bridge: "rabbit", queue: `made-${process.pid}`, create: true } },
      },
    });
    const rabbit = await tried("rabbit");
    expect(rabbit.ok).toBe(false);
    expect(rabbit.findings.map(({ ok }) => ok)).toEqual([true, true, false, true]);
    expect(rabbit.findings[2]?.detail).toContain("does not exist");
    expect(rabbit.findings[3]?.detail).toContain("not looked at");
    const said = async (name: string) => (await tried(name)).findings.map(({ detail }) => detail);
    expect((await said("closed"))[0]).toContain("refused the connection");
    expect((await said("unknown"))[0]).toContain("not a known host");
    expect((await said("login"))[0]).toMatch(/login|ACCESS|refused|403/i);
    const all = await doctor();
    expect(all.exitCode).toBe(1);
    expect(all.stdout).toContain("ok     bridge rabbit: connect");
    expect(all.stdout).toContain("WRONG  bridge closed: connect");
    expect(all.stderr).toContain("checks found a fault");
  },
  120_000,
);
