/** Previews tell what a draft changes, step aside for others, and end when nobody waits. */
import { expect, test } from "bun:test";
import type { Translation } from "../../src/bridge.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import type { StreamBatch } from "../../src/log/stream-reader.ts";
import type { StoredMessage } from "../../src/message.ts";
import type { Json, JsonObject } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import {
  preview,
  type PreviewEvent,
  type PreviewInput,
  type PreviewResult,
} from "../../src/rules/preview.ts";
import { Rehearsal, type RehearsalBridges } from "../../src/rules/rehearsal.ts";
import { bridges, modules as plainModules, stored } from "./messages.ts";

/** MQTT loses keys here, and takes no body of more than 50,000 bytes. */
const translation: Translation = {
  rows: () => [],
  losses: ({ key }) => (key === null ? [] : [{ field: "key", what: "the key" }]),
  refusal: ({ body }) => ((body?.length ?? 0) > 50_000 ? "the body is too large" : null),
};
const modules = new Map(
  [...plainModules].map(([kind, module]) => [
    kind,
    kind === "mqtt" ? { ...module, translation } : module,
  ]),
);

const withBridges = (from: typeof modules): RehearsalBridges => ({
  modules: from,
  configOf: (name) => bridges.get(name),
});

function rehearsal(document: JsonObject): Rehearsal {
  const parsed = parseDefinition("rules", "r", document, { modules, bridges });
  return new Rehearsal("r", parsed, withBridges(modules));
}

function batches(messages: readonly StoredMessage[], size = 10): PreviewInput["next"] {
  let at = 0;
  return () => {
    const part = messages.slice(at, at + size);
    at += size;
    const batch: StreamBatch = { messages: part, partition: 0, gaps: [] };
    return Promise.resolve(part.length === 0 ? null : batch);
  };
}

function input(over: Partial<PreviewInput>): PreviewInput {
  return {
    draft: null,
    live: null,
    next: batches([]),
    limit: 1_000_000,
    total: 0,
    clock: systemClock,
    share: () => 0.1,
    signal: new AbortController().signal,
    ...over,
  };
}

async function resultOf(given: PreviewInput): Promise<PreviewResult> {
  for await (const event of preview(given)) if ("result" in event) return event.result;
  throw new Error("there was no result");
}

const orders = (bodies: readonly Json[]): StoredMessage[] =>
  bodies.map((body, offset) => stored({ body: JSON.stringify(body), offset, key: `k${offset}` }));

const to: Json = [
  { bridge: "eu", topic: "orders" },
  { bridge: "plant", topic: "orders/${body.region}" },
];

test("each message is newly matched, no longer matched, changed, refused or as before", async () => {
  const live = {
    from: "orders",
    where: "body.amount > 100",
    to,
    set: { body: { n: "${body.n}" } },
  };
  const draft = {
    from: "orders",
    where: "body.amount > 50 && body.region != 'us'",
    to,
    set: { body: { n: "${body.region == 'eu' ? body.n : body.n + 1}" } },
  };
  const messages = orders([
    { amount: 10, n: 1, region: "eu" },
    { amount: 60, n: 2, region: "eu" },
    { amount: 200, n: 3, region: "us" },
    { amount: 200, n: 4, region: "eu" },
    { amount: 200, n: 5, region: "asia" },
    { amount: 200, n: 6, region: "a/b" },
    { amount: "x", n: 7, region: "eu" },
  ]);
  const result = await resultOf(
    input({
      draft: rehearsal(draft),
      live: rehearsal(live),
      next: batches(messages, 2),
    }),
  );
  expect(result.counts).toEqual({
    messages: 7,
    matchedLive: 4,
    matchedDraft: 4,
    added: 1,
    removed: 1,
    changed: 2,
    same: 1,
    refused: 1,
    refusedLive: 1,
    whereFailed: 1,
  });
  const { added, removed, changed, refused } = result.samples;
  expect(added.map(({ offset }) => offset)).toEqual([1]);
  expect(removed.map(({ offset }) => offset)).toEqual([2]);
  expect(changed.map(({ offset }) => offset)).toEqual([4, 5]);
  expect(refused.map(({ offset }) => offset)).toEqual([5]);
  expect(changed[0]?.targets[0]?.diff).toContain("-   n: 5");
  expect(changed[0]?.targets[0]?.diff).toContain("+   n: 6");
  expect(refused[0]?.targets.map(({ target }) => target)).toEqual([
    "plant topic orders/${body.region}",
  ]);
  expect(refused[0]?.targets[0]?.refused).toContain('contains "/"');
  expect(result.losses).toEqual([
    { target: "plant topic orders/${body.region}", loss: "the key", messages: 3 },
  ]);
  expect(result.complete).toBe(true);
});

test("a new rule, a deleted one, and another target are told as what they are", async () => {
  const one = { from: "orders", to: { bridge: "eu", topic: "a" } };
  const messages = orders([{ n: 1 }, { n: 2 }]);
  const made = await resultOf(input({ draft: rehearsal(one), next: batches(messages) }));
  expect([made.counts.added, made.counts.same]).toEqual([2, 0]);
  const gone = await resultOf(input({ live: rehearsal(one), next: batches(messages) }));
  expect([gone.counts.removed, gone.counts.matchedDraft]).toEqual([2, 0]);
  const other = { ...one, to: { bridge: "eu", topic: "b" } };
  const moved = await resultOf(
    input({ draft: rehearsal(other), live: rehearsal(one), next: batches(messages) }),
  );
  expect(moved.counts.changed).toBe(2);
  expect(moved.samples.changed[0]?.targets.map(({ target }) => target)).toEqual([
    "eu topic a",
    "eu topic b",
  ]);
});

test("an address that the bridge itself would refuse is told", async () => {
  const draft = rehearsal({ from: "orders", to: { bridge: "eu", topic: "${raw(body.topic)}" } });
  const strict = new Map(modules);
  const kafka = modules.get("kafka");
  if (kafka === undefined) throw new Error("the tests' modules have kafka");
  strict.set("kafka", {
    ...kafka,
    parseAddress: (fields, end) => {
      const address = kafka.parseAddress({ topic: "x" }, end);
      if (fields["topic"] !== "bad topic") return address;
      return kafka.parseAddress({ wrong: true }, end);
    },
  });
  const messages = orders([{ topic: "good" }, { topic: "bad topic" }]);
  const document = parseDefinition(
    "rules",
    "r",
    { from: "orders", to: { bridge: "eu", topic: "${raw(body.topic)}" } },
    { modules, bridges },
  );
  const result = await resultOf(
    input({
      draft: new Rehearsal("r", document, withBridges(strict)),
      live: draft,
      next: batches(messages),
    }),
  );
  expect(result.counts.refused).toBe(1);
  expect(result.samples.refused[0]?.offset).toBe(1);
});

test("what the codec would refuse is refused, and what a strict rule would lose", async () => {
  const to: Json = { bridge: "plant", topic: "orders" };
  const messages = [
    stored({ body: "a", offset: 0, key: null }),
    stored({ body: "b", offset: 1, key: "k" }),
    stored({ body: "x".repeat(60_000), offset: 2, key: null }),
  ];
  const draft = rehearsal({ from: "orders", to, translation: "strict" });
  const { counts, samples, losses } = await resultOf(input({ draft, next: batches(messages) }));
  expect(counts.refused).toBe(2);
  expect(samples.refused.map(({ targets }) => targets[0]?.refused)).toEqual([
    "translation is strict: the key",
    "the body is too large",
  ]);
  expect(losses).toEqual([{ target: "plant topic orders", loss: "the key", messages: 1 }]);
});

test("samples, messages and bodies are bounded", async () => {
  const draft = rehearsal({ from: "orders", to: { bridge: "eu", topic: "a" } });
  const messages = Array.from({ length: 500 }, (_, offset) =>
    stored({ body: "x".repeat(20_000), offset }),
  );
  const result = await resultOf(input({ draft, next: batches(messages), limit: 200, total: 500 }));
  expect([result.counts.messages, result.complete]).toEqual([200, false]);
  expect(result.samples.added).toHaveLength(10);
  expect(JSON.stringify(result.samples.added[0]).length).toBeLessThan(8_000);
});

test("it works a tenth of the time by the clock, and tells its progress", async () => {
  const slow = rehearsal({ from: "orders", where: "body.all(x, x >= 0)", to: { stream: "t" } });
  const numbers = Array.from({ length: 2_000 }, (_, index) => index);
  const messages = Array.from({ length: 300 }, (_, offset) =>
    stored({ body: JSON.stringify(numbers), offset }),
  );
  const events: PreviewEvent[] = [];
  const given = input({ draft: slow, live: slow, next: batches(messages), total: 300 });
  for await (const event of preview(given)) events.push(event);
  const last = events.at(-1);
  if (last === undefined || !("result" in last)) throw new Error("the last event is the result");
  const { workedMs, tookMs, counts } = last.result;
  expect(counts.messages).toBe(300);
  expect(workedMs / tookMs).toBeLessThan(0.13);
  const told = events.flatMap((event) => ("progress" in event ? [event.progress.messages] : []));
  expect(told).toEqual(told.toSorted((a, b) => a - b));
  if (tookMs > 600) expect(told.length).toBeGreaterThan(0);
});

test("an abort ends it without a result, also while it rests", async () => {
  const stop = new AbortController();
  let rests = 0;
  const clock: Clock = {
    nowMs: () => systemClock.nowMs(),
    // Each look at the clock is a slice's time: it rests after every message.
    monotonicMs: () => rests * 1000 + performance.now() * 1000,
    sleep: (_ms, signal) => {
      rests++;
      if (rests === 3) stop.abort();
      return systemClock.sleep(0, signal);
    },
  };
  const draft = rehearsal({ from: "orders", to: { stream: "t" } });
  const messages = orders(Array.from({ length: 50 }, (_, n) => ({ n })));
  const events: PreviewEvent[] = [];
  const given = input({ draft, next: batches(messages), clock, signal: stop.signal });
  for await (const event of preview(given)) events.push(event);
  expect(events.some((event) => "result" in event)).toBe(false);
});
