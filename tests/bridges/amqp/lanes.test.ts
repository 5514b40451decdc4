/** Order within each lane whatever fails: of a call's own steps, and at a RabbitMQ that refuses. */
import { describe, expect, test } from "bun:test";
import { connect } from "amqplib";
import { Lanes } from "../../../bridges/amqp/lanes.ts";
import { amqp } from "../../../bridges/amqp/module.ts";
import type { Outcome, Outgoing } from "../../../src/bridge.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";

const never = new AbortController().signal;
const SENT: Outcome = { sent: null };

/** Lanes whose messages are settled by the test. */
function rig(signal = never) {
  const lanes = new Lanes(signal);
  const begun: string[] = [];
  const outcomes = new Map<string, Outcome>();
  const underWay = new Map<string, (outcome: Outcome) => void>();
  const offer = (name: string, lane: string | undefined): void => {
    const settle = (outcome: Outcome): void => void outcomes.set(name, outcome);
    lanes.offer({
      lane,
      settle,
      begin: (done) => {
        begun.push(name);
        underWay.set(name, done);
      },
    });
  };
  const settle = (name: string, outcome: Outcome): void => underWay.get(name)?.(outcome);
  return { lanes, begun, outcomes, offer, settle };
}

describe("lanes of a call", () => {
  test("have one message each under way, and the next goes with the confirmation", () => {
    const { begun, offer, settle } = rig();
    for (const name of ["a1", "b1", "a2", "a3", "b2"]) offer(name, name.slice(0, 1));
    expect(begun).toEqual(["a1", "b1"]);
    settle("a1", SENT);
    expect(begun).toEqual(["a1", "b1", "a2"]);
    settle("b1", SENT);
    settle("a2", SENT);
    expect(begun).toEqual(["a1", "b1", "a2", "b2", "a3"]);
  });

  test("begin nothing more behind a message that was not sent", () => {
    const { lanes, begun, outcomes, offer, settle } = rig();
    for (const name of ["a1", "b1", "a2", "b2"]) offer(name, name.slice(0, 1));
    settle("a1", { refused: "no" });
    expect(lanes.isStopped).toBe(true);
    settle("b1", SENT);
    expect(begun).toEqual(["a1", "b1"]);
    expect(Object.fromEntries(outcomes)).toEqual({
      a1: { refused: "no" },
      a2: { unknown: true },
      b1: SENT,
      b2: { unknown: true },
    });
  });

  test("end with the abort", () => {
    const abort = new AbortController();
    const { begun, outcomes, offer, settle } = rig(abort.signal);
    for (const name of ["a1", "a2"]) offer(name, "a");
    abort.abort();
    settle("a1", SENT);
    expect(begun).toEqual(["a1"]);
    expect(outcomes.get("a2")).toEqual({ unknown: true });
  });

  test("hold up no message without one", () => {
    const { begun, offer } = rig();
    for (const name of ["1", "2", "3"]) offer(name, undefined);
    expect(begun).toEqual(["1", "2", "3"]);
  });
});

test.skipIf(missingBroker("amqp") !== null)(
  "a full queue that takes some and refuses others gets the messages of each key in order",
  async () => {
    const { url } = await broker("amqp");
    const model = await connect(url);
    const channel = await model.createChannel();
    const queue = `lanes-${process.pid}`;
    const full = { "x-max-length": 20, "x-overflow": "reject-publish" };
    await channel.assertQueue(queue, { durable: true, arguments: full });
    const context = { name: "rabbit", resolve: (text: string) => Promise.resolve(text) };
    const config = amqp.parseConfig({ url });
    await using bridge = await amqp.connect(config, { ...context, signal: never });
    const address = amqp.parseAddress({ queue }, "sink");
    await using sink = await bridge.sink(address);
    const arrived: string[] = [];
    const reader = await model.createChannel();
    await reader.prefetch(1);
    await reader.consume(queue, (message) => {
      if (message === null) return;
      arrived.push(message.content.toString());
      setTimeout(() => reader.ack(message), 1);
    });
    let open: readonly Outgoing[] = Array.from({ length: 300 }, (_, index) => ({
      message: {
        id: `lanes-${process.pid}-${index}`,
        key: null,
        properties: {},
        headers: [],
        body: Buffer.from(`${index}`),
        timestampMs: 1_700_000_000_000,
        origin: null,
      },
      fields: address.fields,
      lane: `lane ${index % 40}`,
    }));
    let refusals = 0;
    while (open.length > 0) {
      const outcomes = await sink.send(open, never);
      refusals += outcomes.filter((outcome) => "busyMs" in outcome).length;
      open = open.filter((_, index) => !("sent" in (outcomes[index] ?? { unknown: true })));
    }
    while (arrived.length < 300) await Bun.sleep(5);
    await channel.deleteQueue(queue);
    await model.close();
    expect(refusals).toBeGreaterThan(0);
    for (let lane = 0; lane < 40; lane++) {
      const own = arrived.map(Number).filter((index) => index % 40 === lane);
      expect(own).toEqual(own.toSorted((a, b) => a - b));
    }
  },
  30_000,
);
