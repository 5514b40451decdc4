/** Documents and addresses of the kind kafka, and the partition of a key. */
import { describe, expect, test } from "bun:test";
import { kafka } from "../../../bridges/kafka/module.ts";
import { murmur2, partitionOfKey } from "../../../bridges/kafka/partitioner.ts";
import { bridgeModules } from "../../../bridges/registry.ts";
import { InvalidError } from "../../../src/errors.ts";
import { encodeText } from "../../../src/message.ts";

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof InvalidError) return error.message;
    throw error;
  }
  return "";
}

describe("documents of the kind kafka", () => {
  test("take what the contract shows", () => {
    expect(
      kafka.parseConfig({
        urls: ["127.0.0.1:9092", "kafka://b:1", "[::1]:9093", "${env:KAFKA}"],
        sasl: "scram-sha-512",
        username: "gw",
        password: "${env:KAFKA_PASSWORD}",
        tls: true,
        heartbeat: "2s",
      }),
    ).toEqual({
      urls: ["127.0.0.1:9092", "kafka://b:1", "[::1]:9093", "${env:KAFKA}"],
      sasl: { mechanism: "scram-sha-512", username: "gw", password: "${env:KAFKA_PASSWORD}" },
      tls: {},
      clientId: null,
      heartbeatMs: 2000,
    });
    expect(kafka.parseConfig({ url: "a:1" })).toMatchObject({ heartbeatMs: 10_000 });
  });

  test("refuse what cannot work, in one line", () => {
    const refuse = (document: object): string => refusal(() => kafka.parseConfig(document));
    expect(refuse({})).toContain("expected url or urls");
    expect(refuse({ url: "http://x/y" })).toContain("expected host:port");
    expect(refuse({ url: "a:1", heartbeat: "10ms" })).toContain("expected at least 1s");
    expect(refuse({ url: "a:70000" })).toContain("expected host:port");
    expect(refuse({ url: "a:1", sasl: "gssapi" })).toContain(
      '"gssapi" is not supported: use plain, scram-sha-256, scram-sha-512, oauthbearer',
    );
    expect(refuse({ url: "a:1", sasl: "oauthbearer" })).toContain("/token: oauthbearer needs it");
    expect(
      refuse({ url: "a:1", sasl: "plain", username: "x", password: "y", token: "z" }),
    ).toContain("/token");
    expect(refuse({ url: "a:1", username: "x", password: "y" })).toContain("need sasl");
    expect(refuse({ url: "a:1", sasl: "plain", username: "x" })).toContain("/password");
    expect(refuse({ url: "a:1", tls: { caa: "x" } })).toContain('did you mean "ca"?');
  });

  test("have addresses whose text is the place", () => {
    expect(kafka.parseAddress({ topic: "orders" }, "source").text).toBe("topic orders");
    expect(kafka.parseAddress({ topic: "orders", group: "g" }, "source").text).toBe(
      "topic orders group g",
    );
    expect(kafka.parseAddress({ topic: "orders", create: true }, "sink").text).toBe("topic orders");
    expect(
      kafka.parseAddress({ topic: "o", create: { partitions: 6, replication: 3 } }, "sink").fields,
    ).toEqual({
      topic: "o",
      partition: null,
      compression: "none",
      create: { partitions: 6, replication: 3 },
    });
    expect(
      kafka.parseAddress({ topic: "x-${body.a}", partition: "${key}" }, "sink").fields,
    ).toEqual({
      topic: "x-${body.a}",
      partition: "${key}",
      compression: "none",
      create: null,
    });
    expect(kafka.parseAddress({ pattern: "orders-.*", group: "g" }, "source").text).toBe(
      "topics orders-.* group g",
    );
  });

  test("refuse addresses that no topic can have", () => {
    const refuse = (address: Record<string, unknown>, end: "source" | "sink"): string =>
      refusal(() => kafka.parseAddress(address, end));
    expect(refuse({ topic: "a b" }, "sink")).toContain("not a topic name of Kafka");
    expect(refuse({ topic: "x-${a}" }, "source")).toContain("not a topic name of Kafka");
    expect(refuse({ topic: ".." }, "sink")).toContain("not a topic name");
    expect(refuse({ pattern: "a(" }, "source")).toContain("regular expression (RE2)");
    expect(refuse({ pattern: "a", topic: "a" }, "source")).toContain("either topic or pattern");
    expect(refuse({ pattern: "a", offset: 1 }, "source")).toContain("/offset");
    expect(refuse({ topic: "a", offset: { x: 1 } }, "source")).toContain("/offset");
    expect(refuse({ topic: "a", compression: "zip" }, "sink")).toContain("/compression");
    expect(refuse({ topik: "a" }, "sink")).toContain("/topic");
    expect(refuse({ topic: "a", partition: -1 }, "sink")).toContain("/partition");
    expect(refuse({ topic: "a", qos: 1 }, "sink")).toContain('unknown key "qos"');
  });

  test("are found in the registry", () => {
    expect(bridgeModules.get("kafka")?.kind).toBe("kafka");
  });
});

describe("the partition of a key", () => {
  test("is the one that Kafka's own producers choose", () => {
    // The vectors of Kafka's own test of its hash.
    const vectors: readonly (readonly [string, number])[] = [
      ["21", -973932308],
      ["foobar", -790332482],
      ["a-little-bit-long-string", -985981536],
      ["a-little-bit-longer-string", -1486304829],
      ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
      ["abc", 479470107],
    ];
    for (const [text, hash] of vectors) expect(murmur2(encodeText(text))).toBe(hash);
    expect(partitionOfKey(encodeText("foobar"), 10)).toBe((-790332482 & 0x7fffffff) % 10);
  });

  test("does not depend on where the bytes lie in their buffer", () => {
    const padded = encodeText("xxabc").subarray(2);
    expect(murmur2(padded)).toBe(479470107);
  });
});
