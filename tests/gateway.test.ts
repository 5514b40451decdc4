/**
 * The gateway over a broker in memory and real files: what is wanted becomes what runs, messages
 * come in and go out by the same rules, and changes take effect before they are answered.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import type { BridgeModule } from "../src/bridge.ts";
import { type Clock, systemClock } from "../src/clock.ts";
import { InvalidError, StorageError } from "../src/errors.ts";
import { Gateway, type GatewayEvents } from "../src/gateway.ts";
import { type Disk, realDisk } from "../src/log/disk.ts";
import { type FileLog, openFileLog } from "../src/log/files.ts";
import { Streams } from "../src/log/stream.ts";
import { decodeText, encodeText } from "../src/message.ts";
import type { JsonObject, Kind } from "../src/rules/document.ts";
import { parseDefinition } from "../src/rules/parse.ts";
import { openStore, type Store } from "../src/rules/store/store.ts";
import { memoryModule } from "./conformance/memory.ts";
import { MemoryBroker } from "./conformance/memory-broker.ts";
import { message, readAll } from "./log/support.ts";
import { type TemporaryFolder, temporaryFolder, waitFor } from "./temporary.ts";

setDefaultTimeout(30_000);

interface Life extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly store: Store;
  readonly log: FileLog;
  readonly warnings: string[];
}

let folder: TemporaryFolder;
let broker: MemoryBroker;
let name = "";
let lives = 0;

beforeEach(async () => {
  folder = await temporaryFolder();
  name = `gateway-${process.pid}-${lives++}`;
  broker = MemoryBroker.named(name);
});

afterEach(async () => {
  await folder[Symbol.asyncDispose]();
});

const modules: ReadonlyMap<string, BridgeModule> = new Map([["memory", memoryModule()]]);

interface Surroundings {
  readonly disk?: Disk;
  readonly clock?: Clock;
  readonly segmentBytes?: number;
}

async function live(surroundings: Surroundings = {}): Promise<Life> {
  const { disk = realDisk, clock = systemClock, segmentBytes } = surroundings;
  const warnings: string[] = [];
  const warn = (sentence: string): void => {
    warnings.push(sentence);
  };
  const nothing = (): void => undefined;
  const events: GatewayEvents = {
    route: () => ({ onFinished: nothing, onRetry: nothing, onLost: nothing, onGap: nothing, warn }),
    onTaken: nothing,
    onExpressionFailed: nothing,
    info: nothing,
    warn,
  };
  const stack = new AsyncDisposableStack();
  const log = stack.use(
    await openFileLog({
      folder: join(folder.path, "streams"),
      disk,
      clock,
      ...(segmentBytes === undefined ? {} : { segmentBytes }),
      random: (count) => crypto.getRandomValues(new Uint8Array(count)),
      onFatal: nothing,
      onCommit: nothing,
      warn,
    }),
  );
  const store = stack.use(
    await openStore({
      dataFolder: folder.path,
      databaseUrl: null,
      secretKey: null,
      adminToken: null,
      parse: (kind, each, document, bridges) =>
        parseDefinition(kind, each, document, { modules, bridges }),
      changed: nothing,
      warn,
      env: () => undefined,
      clock: systemClock,
    }),
  );
  const streams = new Streams(log);
  const gateway = new Gateway({
    log,
    streams,
    store,
    nodes: null,
    modules,
    clock,
    random: Math.random,
    events,
  });
  stack.defer(() => gateway.stop());
  await gateway.start();
  const owned = stack.move();
  return { gateway, store, log, warnings, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function apply(
  { gateway }: Life,
  documents: Partial<Record<Kind, Record<string, JsonObject>>>,
): Promise<void> {
  const changes = Object.entries(documents).flatMap(([kind, own]) =>
    Object.entries(own).map(([each, document]) => ({ kind: kind as Kind, name: each, document })),
  );
  await gateway.change(changes, { by: "test" });
}

async function drained({ gateway }: Life): Promise<void> {
  await waitFor("the routes have caught up", () =>
    gateway.routes().every(({ offset, end }) => offset === end),
  );
}

function bodies(topic: string): string[] {
  return broker.messages(topic).map(({ body }) => decodeText(body ?? new Uint8Array()));
}

function publish(topic: string, body: string): void {
  broker.publish(topic, message(body, { body: encodeText(body) }));
}

test("one rule carries messages from one topic through the log to another", async () => {
  await using life = await live();
  broker.createTopic("in");
  broker.createTopic("out");
  publish("in", '{"n":1}');
  publish("in", '{"n":2}');
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    rules: {
      r: {
        from: { bridge: "m", topic: "in" },
        start: "earliest",
        where: "body.n > 1",
        to: { bridge: "m", topic: "out" },
      },
    },
  });
  await waitFor("the message has arrived", () => bodies("out").length === 1);
  expect(bodies("out")).toEqual(['{"n":2}']);
  expect(life.gateway.sourceNames()).toEqual(["m.topic-in"]);
  await waitFor("the source says so", () => {
    return life.gateway.sourceStatus("m.topic-in").messages === 2;
  });
  expect(life.gateway.bridgeStatus("m").state).toBe("connected");
});

test("a bridge that can't be reached shows as down; the rest of the rule goes on", async () => {
  await using life = await live();
  broker.createTopic("out");
  await broker.line().down();
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    rules: { r: { from: "in", to: [{ bridge: "m", topic: "out" }, { stream: "copy" }] } },
  });
  const { streams } = life.gateway;
  await streams.stream("in").appendOne(message("a")).durable;
  await waitFor("the copy is there", () => streams.stream("copy").partitions[0]?.offsetEnd === 1);
  await waitFor("it shows as down", () => life.gateway.bridgeStatus("m").state === "down");
  expect(life.gateway.bridgeStatus("m").error).not.toBeNull();
  expect(life.gateway.readiness()).toEqual({ ready: true, reasons: [], warnings: [] });
  await broker.line().up();
  await drained(life);
  expect(broker.messages("out").length).toBe(1);
});

test("a change is in effect when it is answered, and a wrong one changes nothing", async () => {
  await using life = await live();
  broker.createTopic("out");
  const to = { name: "t", bridge: "m", topic: "out" };
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    rules: { r: { from: "in", set: { body: "1" }, to } },
  });
  const stream = life.gateway.streams.stream("in");
  await stream.appendOne(message("a")).durable;
  await apply(life, { rules: { r: { from: "in", set: { body: "2" }, to } } });
  await stream.appendOne(message("b")).durable;
  const wrong = apply(life, {
    rules: {
      r: { from: "in", set: { body: "3" }, to },
      s: { from: "in", where: "body.x >", to },
    },
  });
  await expect(wrong).rejects.toThrow(InvalidError);
  await stream.appendOne(message("c")).durable;
  await drained(life);
  expect(bodies("out")).toEqual(["1", "2", "2"]);
});

test("a changed bridge is connected anew, and its routes go on without a loss", async () => {
  await using life = await live();
  broker.createTopic("out");
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    rules: { r: { from: "in", to: { bridge: "m", topic: "out" } } },
  });
  const stream = life.gateway.streams.stream("in");
  const sent: string[] = [];
  for (let round = 0; round < 5; round++) {
    for (let index = 0; index < 20; index++) {
      const id = `${round}-${index}`;
      sent.push(id);
      await stream.appendOne(message(id, { body: encodeText(id) })).durable;
    }
    await apply(life, { bridges: { m: { kind: "memory", broker: name, username: `u${round}` } } });
  }
  await drained(life);
  expect([...new Set(bodies("out"))]).toEqual(sent);
});

test("definitions, cursors and what was taken in survive a restart", async () => {
  broker.createTopic("in");
  broker.createTopic("out");
  const sent = Array.from({ length: 30 }, (_, index) => `m${index}`);
  {
    await using life = await live();
    await apply(life, {
      bridges: { m: { kind: "memory", broker: name } },
      sources: { s: { from: { bridge: "m", topic: "in" }, stream: "all", start: "earliest" } },
      rules: { r: { from: "all", to: { bridge: "m", topic: "out" } } },
    });
    for (const body of sent.slice(0, 20)) publish("in", body);
    await waitFor("some have arrived", () => bodies("out").length >= 10);
  }
  for (const body of sent.slice(20)) publish("in", body);
  await using life = await live();
  await waitFor("all have arrived", () => new Set(bodies("out")).size === 30);
  await drained(life);
  expect([...new Set(bodies("out"))]).toEqual(sent);
  const partition = life.gateway.streams.stream("all").partitions[0];
  if (partition === undefined) throw new Error("the stream has a partition");
  const taken = (await readAll(partition)).map(({ text }) => text);
  expect([...new Set(taken)]).toEqual(sent);
});

test("key and dedupe of a source are applied; what can't be kept is set aside with a reason", async () => {
  await using life = await live();
  broker.createTopic("in");
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    sources: {
      s: {
        from: { bridge: "m", topic: "in" },
        stream: "all",
        start: "earliest",
        key: "body.k",
        dedupe: "body.id",
      },
    },
  });
  publish("in", '{"id":1,"k":"a"}');
  publish("in", '{"id":1,"k":"a"}');
  publish("in", '{"id":2,"k":"b"}');
  publish("in", "not json");
  broker.publish("in", message("x".repeat(300), { body: encodeText("odd") }));
  await waitFor("all are settled", () => life.gateway.sourceStatus("s").messages === 5);
  const partition = life.gateway.streams.stream("all").partitions[0];
  if (partition === undefined) throw new Error("the stream has a partition");
  const kept = await readAll(partition);
  expect(kept.map(({ key }) => (key === null ? null : decodeText(key)))).toEqual(["a", "b", null]);
  expect(life.gateway.streams.stream("s.dead").partitions[0]?.offsetEnd).toBe(1);
});

test("a deleted rule takes its cursor with it", async () => {
  await using life = await live();
  broker.createTopic("out");
  const rules = { r: { from: "in", to: { bridge: "m", topic: "out" } } };
  await apply(life, { bridges: { m: { kind: "memory", broker: name } }, rules });
  const stream = life.gateway.streams.stream("in");
  await stream.appendOne(message("a", { body: encodeText("a") })).durable;
  await drained(life);
  await life.gateway.change([{ kind: "rules", name: "r", document: null }], { by: "test" });
  expect(life.gateway.routes()).toEqual([]);
  await stream.appendOne(message("b", { body: encodeText("b") })).durable;
  await apply(life, { rules });
  await stream.appendOne(message("c", { body: encodeText("c") })).durable;
  await drained(life);
  expect(bodies("out")).toEqual(["a", "c"]);
});

test("a bridge that is deleted while older messages wait for it holds nothing else up", async () => {
  await using life = await live();
  broker.createTopic("out");
  await broker.line().down();
  const bridge = { kind: "memory", broker: name };
  const to = { name: "t", topic: "out" };
  await apply(life, {
    bridges: { gone: bridge, m: bridge },
    rules: { r: { from: "in", to: { ...to, bridge: "gone" } } },
  });
  await life.gateway.streams.stream("in").appendOne(message("a")).durable;
  await apply(life, { rules: { r: { from: "in", to: { ...to, bridge: "m" } } } });
  await life.gateway.change([{ kind: "bridges", name: "gone", document: null }], { by: "test" });
  await waitFor("it is told", () =>
    life.gateway.routes().some(({ error }) => error?.includes("no bridge gone") === true),
  );
  await broker.line().up();
  await apply(life, { rules: { other: { from: "in", to: { ...to, bridge: "m" } } } });
  await life.gateway.streams.stream("in").appendOne(message("b")).durable;
  await waitFor("another rule goes on", () => broker.messages("out").length === 1);
  await apply(life, { bridges: { gone: bridge } });
  await drained(life);
});

test("a change that a full disk keeps from taking effect is tried again, and nothing goes", async () => {
  let isFull = false;
  const full = (path: string): void => {
    const cause = Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC" });
    if (isFull) throw new StorageError(`can't write ${path}`, { cause });
  };
  const disk: Disk = {
    ...realDisk,
    async open(path, mode) {
      const file = await realDisk.open(path, mode);
      const write = file.write.bind(file);
      file.write = (bytes, position) => {
        full(path);
        write(bytes, position);
      };
      return file;
    },
  };
  const clock: Clock = {
    ...systemClock,
    // Retention looks often.
    sleep: (ms, signal) => systemClock.sleep(ms === 10_000 ? 10 : ms, signal),
  };
  await using life = await live({ disk, clock, segmentBytes: 400 });
  broker.createTopic("out");
  await broker.line().down();
  const to = { bridge: "m", topic: "out" };
  await apply(life, {
    bridges: { m: { kind: "memory", broker: name } },
    streams: { in: { retention: { after: "routed" } } },
    rules: { r: { from: "in", to } },
  });
  const stream = life.gateway.streams.stream("in");
  const sent = Array.from({ length: 10 }, (_, index) => `m${index}`);
  for (const body of sent) {
    await stream.appendOne(message(body, { body: encodeText(body.repeat(40)) })).durable;
  }
  isFull = true;
  const change = apply(life, {
    bridges: { m: { kind: "memory", broker: name, username: "other" } },
    rules: { r: { from: "in", set: { body: "new" }, to } },
  });
  await expect(change).rejects.toThrow(StorageError);
  expect(life.gateway.readiness().ready).toBe(false);
  await Bun.sleep(150);
  expect(stream.partitions[0]?.offsetStart).toBe(0);
  isFull = false;
  await broker.line().up();
  await waitFor("the change is in effect", () => life.gateway.readiness().ready);
  await drained(life);
  expect(bodies("out")).toEqual(sent.map((body) => body.repeat(40)));
});

test("what is stored while it stops is not begun any more", async () => {
  const life = await live();
  const changed = life.gateway.stop();
  await life.store.change(
    [{ kind: "bridges", name: "m", document: { kind: "memory", broker: name } }],
    { by: "test" },
  );
  await changed;
  await life.gateway.refresh();
  expect(life.gateway.bridgeStatus("m").sinceMs).toBe(0);
  await life[Symbol.asyncDispose]();
});
