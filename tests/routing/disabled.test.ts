/** A target that wants nothing more: of all partitions, through a restart, until somebody says so. */
import { afterEach, expect, test } from "bun:test";
import { http } from "../../bridges/http/module.ts";
import { encodeText } from "../../src/message.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { freePort, waitFor } from "../temporary.ts";
import { type Revisions, rig } from "./support.ts";

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function target() {
  const state = { status: 410, came: 0 };
  const server = Bun.serve({
    port: await freePort(),
    hostname: "127.0.0.1",
    fetch: () => {
      state.came++;
      return new Response("moved away", { status: state.status });
    },
  });
  ends.push(() => server.stop(true));
  return { state, url: `http://127.0.0.1:${server.port}/` };
}

async function start(url: string, disk: MemoryDisk, revisions: Revisions) {
  const { log } = await openLog(disk);
  const config = http.parseConfig({ url, allowPrivate: ["127.0.0.0/8"] });
  const run = rig(log, { bridge: { module: http as never, config }, revisions });
  run.streams.define("in", 4);
  const stop = async (): Promise<void> => {
    await run.stop();
    await log[Symbol.asyncDispose]();
  };
  const put = async (count: number): Promise<void> => {
    const all = Array.from({ length: count }, (_, index) =>
      message(`m${index}`, { key: encodeText(`k${index}`) }),
    );
    await run.streams.stream("in").append(all).durable;
  };
  const states = () => run.routes.statuses().map(({ state }) => state);
  const delivered = () =>
    run.routes.statuses().reduce((sum, { counts }) => sum + counts.delivered, 0);
  const areDisabled = () => states().every((state) => state === "disabled");
  return { ...run, log, stop, put, states, delivered, areDisabled };
}

const rule = { from: "in", order: "key", start: "earliest", to: { bridge: "b" } };

for (const ending of ["an orderly stop", "a crash"]) {
  test(`is not asked after ${ending}; the route resumed asks it, and nothing is lost`, async () => {
    const { state, url } = await target();
    const revisions: Revisions = new Map();
    let disk = new MemoryDisk();
    const first = await start(url, disk, revisions);
    await first.rule({ ...rule, concurrency: 1 });
    await first.put(40);
    await waitFor("all four are disabled", () => first.areDisabled());
    // One answer was enough, with one message under way at a time.
    expect(state.came).toBe(1);
    const [status] = first.routes.statuses();
    expect(status?.error).toContain("the target answered 410: moved away");
    if (ending === "a crash") {
      // What was saved before this is on disk, too.
      await first.log.states.save([["later", encodeText("x")]]);
      disk = disk.crash(new Random(1));
    }
    await first.stop();

    const again = await start(url, disk, revisions);
    const known = revisions.get(1);
    if (known === undefined) throw new Error("there is a first revision");
    await again.routes.reconcile([{ name: "r", stream: "in", definition: known }]);
    ends.unshift(again.stop);
    await Bun.sleep(300);
    expect([state.came, again.areDisabled()]).toEqual([1, true]);
    state.status = 200;
    for (const { route } of again.routes.of("r", null)) await route.setPaused(false);
    await waitFor("all are delivered", () => again.delivered() === 40);
    expect(again.states()).toEqual(["running", "running", "running", "running"]);
    expect(await again.log.states.load("disabled/r/b webhook")).toBeNull();
  });
}

test("is asked again when its rule is changed, and forgotten when its rule goes", async () => {
  const { state, url } = await target();
  const run = await start(url, new MemoryDisk(), new Map());
  ends.unshift(run.stop);
  await run.rule({ ...rule, concurrency: 1 });
  await run.put(10);
  await waitFor("it is disabled", () => run.areDisabled());
  await run.rule({ ...rule, concurrency: 1, where: "true" });
  await waitFor("it was asked again", () => state.came === 2);
  await waitFor("it is disabled again", () => run.areDisabled());
  await run.routes.reconcile([]);
  expect(run.log.states.keys("disabled/")).toEqual([]);
});
