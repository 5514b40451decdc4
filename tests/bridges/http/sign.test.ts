/**
 * Signatures of what HTTP targets are sent, checked by the libraries that receivers use, and by our
 * own hooks where those have no ed25519.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { createHmac, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { Webhook as Standard } from "standardwebhooks";
import { Webhook as Svix } from "svix";
import { http } from "../../../bridges/http/module.ts";
import { InvalidError } from "../../../src/errors.ts";
import { encodeText } from "../../../src/message.ts";
import { freePort } from "../../temporary.ts";
import { messageOf, openTarget, sendOne } from "./support.ts";

interface Arrived {
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

const arrived: Arrived[] = [];
let status = 200;
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: await freePort(),
  async fetch(request) {
    const body = Buffer.from(await request.arrayBuffer());
    arrived.push({ headers: Object.fromEntries(request.headers), body });
    return new Response(null, { status });
  },
});
afterAll(async () => await server.stop(true));

const OLD = `whsec_${Buffer.alloc(24, 1).toString("base64")}`;
const NEW = `whsec_${Buffer.alloc(64, 2).toString("base64")}`;
const OTHER = `whsec_${Buffer.alloc(32, 3).toString("base64")}`;
const pair = generateKeyPairSync("ed25519");
const seed = pair.privateKey.export({ format: "der", type: "pkcs8" }).subarray(-32);
const PRIVATE = `whsk_${seed.toString("base64")}`;

async function sendSigned(
  secrets: readonly string[],
  message = messageOf(),
  headers: Record<string, string> = {},
): Promise<Arrived> {
  await using bridge = await openTarget({ url: server.url.href, headers }, { OLD, NEW, PRIVATE });
  const sink = await bridge.sink(http.parseAddress({ sign: { secrets } }, "sink"));
  await sendOne(sink, message);
  const last = arrived.at(-1);
  if (last === undefined) throw new Error("nothing arrived");
  return last;
}

describe("what a signing target is sent", () => {
  test("is verified by the libraries of receivers, with every secret of a rotation", async () => {
    const { headers, body } = await sendSigned(["${env:NEW}", "${env:OLD}"]);
    for (const secret of [OLD, NEW]) {
      expect(new Standard(secret).verify(body, headers)).toEqual({ a: 1 });
      expect(() => new Svix(secret).verify(body, headers)).not.toThrow();
    }
    expect(() => new Standard(OTHER).verify(body, headers)).toThrow();
    expect(() => new Standard(OLD).verify(Buffer.concat([body, body]), headers)).toThrow();
  });

  test("is verified whatever its bytes, its id, and when it has no body", async () => {
    const all = Uint8Array.from({ length: 256 }, (_, index) => index);
    for (const body of [all, new Uint8Array(0), null]) {
      for (const id of ["orders/0/12", "a.b.1700000000", "100 % ünïcode €", "x".repeat(128)]) {
        const { headers, body: got } = await sendSigned([OLD], messageOf({ id, body }));
        // The library takes text only, so that the bytes are signed here.
        const signed = createHmac("sha256", Buffer.alloc(24, 1))
          .update(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`)
          .update(got)
          .digest("base64");
        expect(got).toEqual(Buffer.from(body ?? []));
        expect(headers["webhook-signature"]).toBe(`v1,${signed}`);
        expect(headers["webhook-id"]).not.toContain(".");
        expect(decodeURIComponent(headers["webhook-id"] ?? "")).toBe(id);
      }
    }
  });

  test("carries v1a for an ed25519 key, beside v1, which its public key verifies", async () => {
    const { headers, body } = await sendSigned([OLD, "${env:PRIVATE}"]);
    const [v1, v1a] = (headers["webhook-signature"] ?? "").split(" ");
    expect(v1).toStartWith("v1,");
    const signature = Buffer.from((v1a ?? "").replace(/^v1a,/, ""), "base64");
    const head = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
    const signed = Buffer.concat([Buffer.from(head), body]);
    expect(verify(null, signed, createPublicKey(pair.privateKey), signature)).toBe(true);
    expect(new Standard(OLD).verify(body, headers)).toEqual({ a: 1 });
  });

  test("has one id and a new signature for each attempt", async () => {
    const message = messageOf();
    status = 503;
    const first = await sendSigned([OLD], message);
    status = 200;
    await Bun.sleep(1001);
    const second = await sendSigned([OLD], message);
    expect(second.headers["webhook-id"]).toBe(message.id);
    expect(first.headers["webhook-id"]).toBe(message.id);
    expect(second.headers["webhook-timestamp"]).not.toBe(first.headers["webhook-timestamp"]);
    expect(() => new Svix(OLD).verify(second.body, second.headers)).not.toThrow();
  });

  test("can't be spoiled by headers of the message or the bridge", async () => {
    const fake = { name: "webhook-signature", value: encodeText("v1,fake") };
    const { headers, body } = await sendSigned([OLD], messageOf({ headers: [fake] }), {
      "webhook-id": "fake",
      "webhook-timestamp": "1",
      "webhook-signature": "v1,fake",
    });
    expect(new Standard(OLD).verify(body, headers)).toEqual({ a: 1 });
  });
});

describe("the keys of a signing target", () => {
  function problems(sign: unknown): readonly string[] {
    try {
      http.parseAddress({ sign }, "sink");
      return [];
    } catch (error) {
      if (!(error instanceof InvalidError)) throw error;
      return error.errors.map(({ pointer, detail }) => `${pointer}: ${detail}`);
    }
  }

  test("are no part of a target's identity, so that a rotation keeps its cursor", () => {
    const plain = http.parseAddress({}, "sink");
    const signing = http.parseAddress({ sign: { secret: "${env:OLD}" } }, "sink");
    expect(signing.text).toBe(plain.text);
    expect(signing.fields).toEqual(plain.fields);
  });

  test("are refused when they are none, and never shown", () => {
    const expected = "expected whsec_ and base64 of 24 to 64 bytes, or whsk_ and base64";
    const short = `whsec_${Buffer.alloc(23).toString("base64")}`;
    for (const secret of ["hunter2", short, "whsec_???", "whsk_AAAA", `whsec_${"A".repeat(100)}`]) {
      const [problem = ""] = problems({ secret });
      expect(problem).toStartWith(`/sign/secret: ${expected}`);
      expect(problem).not.toContain(secret);
    }
    expect(problems({ secrets: [OLD, "hunter2"] })[0]).toStartWith("/sign/secrets/1");
    expect(problems({})).toEqual(["/sign: expected secret or secrets"]);
    expect(problems({ secret: OLD, secrets: [NEW] })[0]).toStartWith("/sign/secrets: give either");
    expect(problems({ secrets: Array.from({ length: 9 }, () => OLD) })[0]).toStartWith("/sign/");
    expect(problems({ secret: OLD, sekret: NEW })[0]).toContain('unknown key "sekret"');
  });

  test("are looked at when the target is opened where they are references", async () => {
    await using bridge = await openTarget({ url: server.url.href }, { BAD: "hunter2", OLD });
    const address = http.parseAddress({ sign: { secrets: ["${env:OLD}", "${env:BAD}"] } }, "sink");
    const error = await bridge.sink(address).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as Error).message).toStartWith("sign: secret 2 of 2 can't be used: expected");
    expect((error as Error).message).not.toContain("hunter2");
  });
});
