/** MQTT topics and filters: captures, matches, and topics that cannot be published. */
import { describe, expect, test } from "bun:test";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import { paramsOf, parseFilter, topicProblem } from "../../../bridges/mqtt/topic.ts";
import { InvalidError } from "../../../src/errors.ts";

describe("a topic to publish to", () => {
  test("is refused when no broker may take it", () => {
    for (const topic of ["", "a/+", "a/#", "+", "a\0b", "a\nb", "x".repeat(65_536), "\ufffe"]) {
      expect(topicProblem(topic)).toBeString();
    }
  });

  test("may be anything else", () => {
    for (const topic of ["a", "/", "a//b", "$x/y", "ü/€", "a b", "x".repeat(65_535)]) {
      expect(topicProblem(topic)).toBeNull();
    }
  });
});

describe("a topic filter", () => {
  test("names levels, which stand for +", () => {
    const filter = parseFilter("plant/{line}/{device}/temp/#");
    if ("problem" in filter) throw new Error(filter.problem);
    expect(filter.text).toBe("plant/+/+/temp/#");
    expect(paramsOf(filter, "plant/3/x y/temp/in/side")).toEqual({ line: "3", device: "x y" });
    expect(paramsOf(filter, "plant//d/temp")).toEqual({ line: "", device: "d" });
  });

  test("is refused when it means nothing", () => {
    for (const text of ["", "a/#/b", "a#", "a+/b", "{a}x/b", "{a}/{a}", "{}", "{1}", "a\0"]) {
      expect(parseFilter(text)).toHaveProperty("problem");
    }
  });
});

describe("the documents of an mqtt bridge", () => {
  const pointers = (run: () => unknown): string[] => {
    try {
      run();
      return [];
    } catch (error) {
      if (error instanceof InvalidError) return error.errors.map((detail) => detail.pointer);
      throw error;
    }
  };

  test("speak MQTT 5 and keep a session for 7 days unless they say otherwise", () => {
    expect(mqtt.parseConfig({ url: "mqtt://a" })).toMatchObject({
      version: 5,
      cleanStart: false,
      sessionExpiryMs: 604_800_000,
      keepaliveMs: 30_000,
      clientId: null,
    });
    for (const version of ["3.1.1", 4, "4"]) {
      expect(mqtt.parseConfig({ url: "wss://a/mqtt", version }).version).toBe(4);
    }
  });

  test("are refused with a pointer to what is wrong", () => {
    expect(pointers(() => mqtt.parseConfig({ url: "amqp://a" }))).toEqual(["/url"]);
    expect(pointers(() => mqtt.parseConfig({ url: "mqtt://a", version: 6 }))).toEqual(["/version"]);
    expect(pointers(() => mqtt.parseConfig({ url: "mqtt://a", keepalive: "1ms" }))).toEqual([
      "/keepalive",
    ]);
  });

  test("have addresses whose text is their identity", () => {
    const source = (input: Record<string, unknown>) => mqtt.parseAddress(input, "source");
    const sink = (input: Record<string, unknown>) => mqtt.parseAddress(input, "sink");
    expect(source({ topic: "a/{b}", share: "g" })).toEqual({
      text: "topic a/{b} shared as g",
      fields: { topic: "a/{b}", share: "g", qos: 1 },
    });
    expect(sink({ topic: "o/${body.region}", retain: true, qos: 0 })).toEqual({
      text: "topic o/${body.region} retained",
      fields: { topic: "o/${body.region}", retain: true, qos: 0 },
    });
    expect(pointers(() => source({ topic: "a/#/b" }))).toEqual(["/topic"]);
    expect(pointers(() => source({ topic: "$share/g/a" }))).toEqual(["/topic"]);
    expect(pointers(() => source({ topic: "a", share: "a/b" }))).toEqual(["/share"]);
    expect(pointers(() => sink({ topic: "a/+" }))).toEqual(["/topic"]);
    expect(pointers(() => sink({ topic: "a", qos: 3 }))).toEqual(["/qos"]);
  });
});
