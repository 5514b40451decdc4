/** The way that a message has taken: what travels, what is a loop, and what merely looks like one. */
import { describe, expect, test } from "bun:test";
import { bridgeModules } from "../../bridges/registry.ts";
import type { Outgoing } from "../../src/bridge.ts";
import type { States } from "../../src/log/log.ts";
import { decodeText, HOPS_HEADER, type Message, type Origin } from "../../src/message.ts";
import { arrived, Hops, parseHops, type Trail } from "../../src/routing/hops.ts";
import type { Definitions, TargetDocument } from "../../src/rules/document.ts";
import { stored } from "../rules/messages.ts";

const bridges = {
  a: { kind: "kafka", config: { urls: ["k1:9092"] } },
  b: { kind: "kafka", config: { urls: ["k2:9092"] } },
  again: { kind: "kafka", config: { urls: ["k1:9092"] } },
  rabbit: { kind: "amqp", config: { url: "amqp://r" } },
};
const definitions = {
  bridges: new Map(Object.entries(bridges).map(([name, parsed]) => [name, { parsed }])),
} as unknown as Definitions;

function statesOf(saved = new Map<string, Uint8Array>()): States {
  return {
    load: (key: string) => Promise.resolve(saved.get(key) ?? null),
    save: (entries: Iterable<readonly [string, Uint8Array | null]>) => {
      for (const [key, value] of entries) if (value !== null) saved.set(key, value);
      return Promise.resolve();
    },
    keys: () => [...saved.keys()],
  } as unknown as States;
}

async function hopsOf(states = statesOf(), random = Math.random): Promise<Hops> {
  const hops = new Hops({ states, modules: bridgeModules, definitions: () => definitions, random });
  await hops.open();
  return hops;
}

function origin(bridge: string, address: string, hops: readonly string[] = []): Origin {
  return { bridge, address, partition: null, offset: null, hops };
}

function target(bridge: keyof typeof bridges, echo?: "drop"): TargetDocument {
  const { kind } = bridges[bridge];
  return {
    name: "t",
    to: { bridge, kind, fields: {}, text: "" },
    ...(echo === undefined ? {} : { echo }),
  } as unknown as TargetDocument;
}

/** Sends a message by a target; it comes in elsewhere, or the way of its loop. */
function pass(trail: Trail, from: Origin, fields: Record<string, unknown>): Message | string {
  const message = stored({ origin: from });
  const outgoing: Outgoing = { message, fields };
  const way = trail.loop(message, outgoing);
  if (way !== null) return way.join(" → ");
  return trail.leave(message, outgoing).message;
}

const headerOf = ({ headers }: Message): string =>
  decodeText(headers.find(({ name }) => name === HOPS_HEADER)?.value ?? new Uint8Array());

/** The message as it comes in at a place. */
function comeIn(message: Message | string, bridge: string, address: string): Origin {
  if (typeof message === "string") throw new Error(message);
  const taken = arrived({ ...message, origin: origin(bridge, address) });
  expect(taken.headers.some(({ name }) => name === HOPS_HEADER)).toBe(false);
  if (taken.origin === null) throw new Error("it has an origin");
  return taken.origin;
}

test("the id of a gateway is made once", async () => {
  const states = statesOf();
  const headers: string[] = [];
  for (const each of [states, states, statesOf()]) {
    const hops = await hopsOf(each);
    const out = pass(hops.trail(target("b")), origin("a", "x"), { topic: "y" });
    headers.push(typeof out === "string" ? out : headerOf(out));
  }
  expect(headers[0]).toMatch(/^[a-z0-9]{10}\/a\/x,[a-z0-9]{10}\/b\/y$/);
  expect(headers[1]).toBe(headers[0] ?? "");
  expect(headers[2]).not.toBe(headers[0] ?? "");
});

describe("a chain", () => {
  test("through one gateway again and again is no loop", async () => {
    const hops = await hopsOf();
    let from = origin("a", "t0");
    for (let n = 1; n < 10; n += 1) {
      from = comeIn(pass(hops.trail(target("a")), from, { topic: `t${n}` }), "a", `t${n}`);
    }
    expect(from.hops).toHaveLength(10);
  });

  test("ends where it is longer than any way should be", async () => {
    const hops = await hopsOf();
    let from = origin("a", "t0");
    const walk = (): void => {
      for (let n = 1; n < 100; n += 1) {
        from = comeIn(pass(hops.trail(target("a")), from, { topic: `t${n}` }), "a", `t${n}`);
      }
    };
    expect(walk).toThrow("a/t0 → a/t1 →");
    expect(from.hops).toHaveLength(32);
  });
});

describe("a loop", () => {
  test("is to send a message to where it came from, under any name of its broker", async () => {
    const hops = await hopsOf();
    expect(pass(hops.trail(target("a")), origin("a", "x"), { topic: "x" })).toBe("a/x → a/x");
    expect(pass(hops.trail(target("again")), origin("a", "x"), { topic: "x" })).toBe(
      "a/x → again/x",
    );
    expect(typeof pass(hops.trail(target("b")), origin("a", "x"), { topic: "x" })).toBe("object");
  });

  test("by another routing key of an exchange is one for echo: drop alone", async () => {
    const hops = await hopsOf();
    const out = pass(
      hops.trail(target("a")),
      origin("rabbit", "own", ["/rabbit/exchange%20e/k1"]),
      { topic: "x" },
    );
    const from = comeIn(out, "a", "x");
    const fields = { exchange: "e", routingKey: "k2" };
    expect(typeof pass(hops.trail(target("rabbit")), from, fields)).toBe("object");
    expect(pass(hops.trail(target("rabbit", "drop")), from, fields)).toContain("exchange e/k2");
    expect(pass(hops.trail(target("rabbit")), from, { ...fields, routingKey: "k1" })).toContain(
      "rabbit/exchange e/k1 → rabbit/own → a/x → rabbit/exchange e/k1",
    );
  });

  test("is not what another gateway's bridges of the same names have passed", async () => {
    const [one, two] = [await hopsOf(), await hopsOf()];
    const from = comeIn(pass(one.trail(target("a")), origin("b", "x"), { topic: "y" }), "a", "y");
    const out = pass(two.trail(target("b")), from, { topic: "x" });
    const back = comeIn(out, "b", "x");
    expect(back.hops).toHaveLength(4);
    expect(pass(one.trail(target("a")), back, { topic: "z" })).toMatch(/^b\/x → a\/y → .* → a\/z$/);
  });
});

describe("the header", () => {
  test("is left alone when no gateway wrote it", () => {
    for (const text of ["", "x", "a/b/c,", "A/b/c", "a/b/c d", `a/b/${"c".repeat(20_000)}`]) {
      expect(parseHops(text)).toBeNull();
      const given = stored({ headers: [[HOPS_HEADER, text]], origin: origin("a", "x") });
      expect(arrived(given)).toBe(given);
    }
  });

  test("holds any name of a place, a long one by a digest", async () => {
    const hops = await hopsOf();
    for (const topic of ["ü/€ ,%", "t".repeat(60_000), "a/b//c", "\ud800"]) {
      const out = pass(hops.trail(target("b")), origin("a", topic), { topic });
      if (typeof out === "string") throw new Error(out);
      const text = headerOf(out);
      expect(text.length).toBeLessThan(400);
      expect(parseHops(text)).toHaveLength(2);
    }
  });

  test("is one, also where a message brings a foreign one along", async () => {
    const hops = await hopsOf();
    const message = stored({ headers: [[HOPS_HEADER, "?"]], origin: origin("a", "x") });
    const out = hops.trail(target("b")).leave(message, { message, fields: { topic: "y" } });
    expect(out.message.headers).toHaveLength(1);
  });
});
