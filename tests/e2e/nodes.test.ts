/**
 * Several gateways on one Postgres: a source that its kind can't share runs in one of them, also
 * while the database is away, and in another soon after that one was killed; what was published
 * meanwhile is taken once. `/api/nodes` lists them, and says who runs what.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { connectAsync, type MqttClient } from "mqtt";
import { type Broker, broker, privateBroker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

interface NodeJson {
  readonly name: string;
  readonly isSelf: boolean;
  readonly ready: boolean;
  readonly definitionsVersion: number;
  readonly seenAtMs: number;
  readonly sources: readonly string[];
}

/** What happens to the database is held without the gateways in tests/rules/store/nodes.test.ts. */
const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";

let postgres: Broker;
let publisher: MqttClient;
let mqttUrl: string;

beforeAll(async () => {
  postgres = await privateBroker("postgres");
  ({ url: mqttUrl } = await broker("mqtt"));
  publisher = await connectAsync(mqttUrl);
}, 120_000);

afterAll(async () => {
  await publisher.endAsync();
  await postgres.stop();
}, 60_000);

async function nodesOf(gateway: TestGateway): Promise<readonly NodeJson[]> {
  return (await gateway.json<{ items: NodeJson[] }>("/api/nodes")).items;
}

async function sourceOf(gateway: TestGateway): Promise<{ state: string; error: string | null }> {
  const { items } = await gateway.json<{
    items: { status: Awaited<ReturnType<typeof sourceOf>> }[];
  }>("/api/sources");
  return items[0]?.status ?? { state: "not there", error: null };
}

/** The gateway that runs the source, and the other one. */
async function runner(pair: readonly TestGateway[]): Promise<readonly TestGateway[]> {
  let found: readonly TestGateway[] = [];
  await waitFor("one gateway runs the source and the other one waits", async () => {
    const states = await Promise.all(pair.map(async (each) => (await sourceOf(each)).state));
    const index = states.indexOf("running");
    found = index === 0 ? pair : pair.toReversed();
    if (states.toSorted().join() !== "running,standby") return false;
    return (await sourceOf(found[1] as TestGateway)).error?.startsWith("gateway ") === true;
  });
  return found;
}

test("a source that can't be shared runs in one of several gateways, and moves when that dies", async () => {
  const topic = `nodes-${randomUUID()}`;
  const environment = {
    DATABASE_URL: postgres.url,
    ISTHMUS_SECRET_KEY: randomBytes(32).toString("base64url"),
  };
  await using a = await TestGateway.start(environment);
  await using b = await TestGateway.start(environment);
  await a.apply({
    bridges: { m: { kind: "mqtt", url: mqttUrl, clientId: topic } },
    sources: { s: { from: { bridge: "m", topic, qos: 1 }, stream: "in" } },
  });
  let published = 0;
  const publish = async (): Promise<void> => {
    published += 1;
    await publisher.publishAsync(topic, String(published), { qos: 1 });
  };
  const takenBy = async (gateway: TestGateway): Promise<readonly string[]> =>
    (await gateway.read("in")).map(({ body }) => String(body));
  const allTaken = async (): Promise<void> => {
    const wanted = Array.from({ length: published }, (_, index) => String(index + 1));
    await waitFor("every message is taken, by one of them", async () => {
      const taken = [...(await takenBy(a)), ...(await takenBy(b))].map(Number);
      return taken.toSorted((left, right) => left - right).join() === wanted.join();
    });
  };

  const [owner, other] = (await runner([a, b])) as [TestGateway, TestGateway];
  await publish();
  await allTaken();
  expect((await sourceOf(other)).error).toMatch(/^gateway \S+ runs it$/);
  const gauge = 'isthmus_source_standby{source="s"}';
  expect(await (await other.fetch("/metrics")).text()).toContain(`${gauge} 1`);
  expect(await (await owner.fetch("/metrics")).text()).toContain(`${gauge} 0`);
  await waitFor("each knows the other, and what it runs", async () => {
    const [mine, theirs] = [await nodesOf(owner), await nodesOf(other)];
    return (
      mine.map(({ isSelf, ready, sources }) => [isSelf, ready, sources.join()]).join(" ") ===
        "true,true,s false,true," &&
      theirs.map(({ isSelf, ready, sources }) => [isSelf, ready, sources.join()]).join(" ") ===
        "true,true, false,true,s"
    );
  });

  if (isFull) {
    await postgres.kill();
    await waitFor("the database is missed", async () => {
      return (await sourceOf(other)).error?.startsWith("it is not known") === true;
    });
    await publish();
    await allTaken();
    await postgres.restart();
    await waitFor("both know of each other again", async () => {
      return (await sourceOf(other)).error?.startsWith("gateway ") === true;
    });
    expect((await sourceOf(owner)).state).toBe("running");
    await publish();
    await allTaken();
  }

  await owner.kill();
  await publish();
  await waitFor("the other takes over", async () => (await sourceOf(other)).state === "running");
  await publish();
  await waitFor("it has taken what was published meanwhile", async () => {
    return (await takenBy(other)).join() === `${published - 1},${published}`;
  });
  await owner.start();
  expect((await runner([owner, other]))[0]).toBe(other);
  await publish();
  await allTaken();

  if (!isFull) return;
  // Who starts while the database is away goes by what it had when it ended.
  await postgres.kill();
  await Promise.all([other.kill(), owner.kill()]);
  await Promise.all([other.start("live"), owner.start("live")]);
  await publish();
  await allTaken();
  expect(await Promise.all([other, owner].map(sourceOf))).toMatchObject([
    { state: "running" },
    { state: "standby" },
  ]);
  await postgres.restart();
  await waitFor("both know of each other again", async () => {
    return (await sourceOf(owner)).error?.startsWith("gateway ") === true;
  });
  expect((await sourceOf(other)).state).toBe("running");
}, 120_000);
