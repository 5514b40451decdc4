/** Logins and certificates against a real Kafka that asks for them. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Admin } from "@platformatic/kafka";
import { kafka } from "../../../bridges/kafka/module.ts";
import type { Bridge } from "../../../src/bridge.ts";
import {
  type GuardedKafka,
  guardedPassword,
  startGuardedKafka,
} from "../../brokers/kafka-cluster.ts";
import { testCertificate, testKey } from "../tls.ts";
import { missingKafka } from "./cluster.ts";
import { collect, message, openSink, openSource, textOf } from "./ends.ts";

setDefaultTimeout(120_000);

/** What references of the documents stand for, and how often each was asked for. */
const secrets = new Map<string, string>();
const asked = new Map<string, number>();

async function resolve(text: string): Promise<string> {
  asked.set(text, (asked.get(text) ?? 0) + 1);
  return secrets.get(text) ?? text;
}

async function open(document: object): Promise<Bridge> {
  const { signal } = new AbortController();
  return await kafka.connect(kafka.parseConfig(document), { name: "eu", resolve, signal });
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  return error instanceof Error ? error.message : "nothing failed";
}

/** A token that nobody has signed. */
function token(subject: string): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const nowS = Math.floor(Date.now() / 1000);
  return `${part({ alg: "none" })}.${part({ sub: subject, iat: nowS, exp: nowS + 3600 })}.`;
}

describe.skipIf(missingKafka !== null)(`logging in to Kafka ${missingKafka ?? ""}`, () => {
  let guarded: GuardedKafka;
  const topic = "guarded";

  beforeAll(async () => {
    guarded = await startGuardedKafka({ cert: testCertificate, key: testKey });
    const admin = new Admin({ clientId: "t", bootstrapBrokers: [guarded.plain], retries: 20 });
    await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 });
    await admin.close();
  });

  afterAll(async () => {
    await guarded.stop();
  });

  /** Writes and reads one message. */
  async function passes(document: object, text: string): Promise<void> {
    await using bridge = await open(document);
    const { send } = await openSink(bridge, { topic });
    expect(await send([message({ text })])).toEqual([{ sent: expect.any(String) }]);
    const name = `reader-${crypto.randomUUID()}`;
    await using source = await openSource(bridge, topic, { name });
    const seen: string[] = [];
    while (!seen.includes(text)) seen.push(...(await collect(source, 1)).map(textOf));
  }

  for (const sasl of ["plain", "scram-sha-256", "scram-sha-512"]) {
    test(`by ${sasl}: reads and writes, and a wrong password is named as such`, async () => {
      const url = guarded.sasl;
      const login = { url, sasl, username: "gw", password: "${env:PASSWORD}" };
      secrets.set("${env:PASSWORD}", guardedPassword);
      await passes(login, sasl);
      // The next connection takes what the reference says by then.
      secrets.set("${env:PASSWORD}", "wrong");
      expect(await failure(open(login))).toBe(
        `${url} refused the user name, the password or the token`,
      );
    });
  }

  test("by a token, which is asked for again at each login", async () => {
    const login = { url: guarded.sasl, sasl: "oauthbearer", token: "${file:/token}" };
    secrets.set("${file:/token}", `${token("gw")}\n`);
    asked.clear();
    await passes(login, "token");
    expect(asked.get("${file:/token}")).toBeGreaterThan(1);
    secrets.set("${file:/token}", "worthless");
    expect(await failure(open(login))).toBe(
      `${guarded.sasl} refused the user name, the password or the token`,
    );
  });

  test("says that a user is not permitted to read or write a topic", async () => {
    const login = {
      url: guarded.sasl,
      sasl: "plain",
      username: "guest",
      password: guardedPassword,
    };
    await using bridge = await open(login);
    const denied = `${guarded.sasl} does not permit this user to use the topic`;
    expect(await failure(openSink(bridge, { topic }))).toBe(denied);
    expect(await failure(openSource(bridge, topic))).toBe(denied);
  });

  test("by a certificate over TLS; without one, or without trust, it says that TLS failed", async () => {
    const url = guarded.mutual;
    const tls = { ca: testCertificate, cert: testCertificate, key: testKey };
    await passes({ url, tls }, "mutual");
    expect(await failure(open({ url, tls: true }))).toContain(`no TLS with ${url}`);
    expect(await failure(open({ url, tls: { ca: testCertificate } }))).toContain(url);
    expect(await failure(open({ url: guarded.plain, tls: true }))).toContain(guarded.plain);
  });
});
