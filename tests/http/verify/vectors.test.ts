/**
 * Vectors of every scheme: the provider's own where one is published, otherwise derived apart from
 * this code with OpenSSL or Python, which each says.
 */
import { expect, test } from "bun:test";
import { VERIFY_SCHEMES } from "../../../src/rules/document.ts";
import { outcomeOf, type Sent } from "./check.ts";

const GITHUB = {
  verify: { scheme: "github", secret: "It's a Secret to Everybody" },
  headers: {
    "x-hub-signature-256":
      "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
  },
  body: "Hello, World!",
};
const STANDARD = {
  verify: { scheme: "standard-webhooks", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" },
  headers: {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  },
  body: '{"test": 2432232314}',
  at: 1614265330,
};
const SLACK_BODY =
  "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
const FORM = { "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
const TWILIO_URL = "https://mycompany.com/myapp.php?foo=1&bar=2";
const TWILIO_BODY =
  "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309";
const TWILIO_JSON = '{"property": "value", "boolean": true}';
const TWILIO_HASH = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";

function twilio(signature: string, url: string, body: string, type = FORM): Sent {
  return {
    verify: { scheme: "twilio", secret: "12345" },
    headers: { "x-twilio-signature": signature, ...type },
    body,
    url,
  };
}

const VECTORS: readonly (readonly [string, Sent])[] = [
  ["github, by its documentation", GITHUB],
  ["standard webhooks, by its own library's tests", STANDARD],
  [
    "standard webhooks under svix's names, the same signature",
    {
      ...STANDARD,
      headers: {
        "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "svix-timestamp": "1614265330",
        "svix-signature": "v1,AAAA v2,zzz v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
      },
    },
  ],
  [
    // Derived with OpenSSL: pkeyutl -sign -rawin over "msg_1.1614265330.{}" by a key of this test.
    "standard webhooks v1a, derived",
    {
      verify: {
        scheme: "standard-webhooks",
        secret: "whpk_qx6yo2mhxpUn+QaJayndH5zhiRS9j/NKfAzGOreUbYg=",
      },
      headers: {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
        "webhook-signature":
          "v1a,spxbF9fzDIU7groRGRDT+c2io5ZRqQFLSpQsFC6HTaTXsAE89I8Hhei2DEC8xTJvIqi+6m/gWhOEpyh6cHCJBg==",
      },
      body: "{}",
      at: 1614265330,
    },
  ],
  [
    // Derived with Python's hmac.
    "stripe, derived: the whole whsec_ text is the key",
    {
      verify: { scheme: "stripe", secret: "whsec_test_secret" },
      headers: {
        "stripe-signature":
          "t=1492774577,v1=88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
      },
      body: '{"id":"evt_test_webhook","object":"event"}',
      at: 1492774577,
    },
  ],
  [
    "slack, by its documentation",
    {
      verify: { scheme: "slack", secret: "8f742231b10e8888abcd99yyyzzz85a5" },
      headers: {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
      },
      body: SLACK_BODY,
      at: 1531420618,
    },
  ],
  ...["x-shopify-hmac-sha256", "shopify-hmac-sha256"].map((name): [string, Sent] => [
    // Derived with Python's hmac.
    `shopify in ${name}, derived`,
    {
      verify: { scheme: "shopify", secret: "hush" },
      headers: { [name]: "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I=" },
      body: '{"id":820982911946154508}',
    },
  ]),
  [
    "twilio, by its documentation",
    twilio(
      "L/OH5YylLD5NRKLltdqwSvS0BnU=",
      "https://example.com/myapp.php?foo=1&bar=2",
      "CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212",
    ),
  ],
  [
    "twilio, by its library's tests",
    twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", TWILIO_URL, TWILIO_BODY),
  ],
  [
    "twilio signed with the port, called without",
    twilio("kvajT1Ptam85bY51eRf/AJRuM3w=", TWILIO_URL, TWILIO_BODY),
  ],
  [
    "twilio signed without the port, called with",
    twilio(
      "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
      "https://mycompany.com:443/myapp.php?foo=1&bar=2",
      TWILIO_BODY,
    ),
  ],
  [
    "twilio with repeated parameters",
    twilio(
      "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
      TWILIO_URL,
      "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
    ),
  ],
  [
    "twilio with a JSON body",
    twilio("a9nBmqA0ju/hNViExpshrM61xv4=", `${TWILIO_URL}&bodySHA256=${TWILIO_HASH}`, TWILIO_JSON, {
      "content-type": "application/json",
    }),
  ],
  [
    "gitlab, whose header holds the secret",
    {
      verify: { scheme: "gitlab", secret: "s3cret" },
      headers: { "x-gitlab-token": "s3cret" },
      body: "{}",
    },
  ],
  [
    // Derived with OpenSSL: pkeyutl -sign -rawin over "1700000000{}" by a key of this test.
    "discord, derived",
    {
      verify: {
        scheme: "discord",
        publicKey: "fa646c57bd5127eb67d7623569d1732f9e63a1f40e6b06673170f8c25c492db0",
      },
      headers: {
        "x-signature-timestamp": "1700000000",
        "x-signature-ed25519":
          "efe429b4af72ebf71279e8ab6a69826cd340e53868a26b20c9ca3edfde963fdb068fcf0e41fff931e6e13984f69cbd38955adeed626d715e9be46348a6f2f90b",
      },
      body: "{}",
      at: 1700000000,
    },
  ],
  [
    // Derived with Python's hmac over "v0:1700000000:{}".
    "zoom, derived",
    {
      verify: { scheme: "zoom", secret: "zoom-secret" },
      headers: {
        "x-zm-request-timestamp": "1700000000",
        "x-zm-signature": "v0=4fc50520fe58713efaf12c259edac8100361a72205945326f2aec30ee98d613b",
      },
      body: "{}",
      at: 1700000000,
    },
  ],
  [
    "sendgrid, by its library's tests",
    {
      verify: {
        scheme: "sendgrid",
        publicKey:
          "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
      },
      headers: {
        "x-twilio-email-event-webhook-timestamp": "1600112502",
        "x-twilio-email-event-webhook-signature":
          "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=",
      },
      body: '[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n',
      at: 1600112502,
    },
  ],
  [
    // Derived with Python's hmac over "POST /hooks/h\n1700000000.e1.{}" by the key 0x6b6579.
    "hmac with everything set, derived",
    {
      verify: {
        scheme: "hmac",
        secret: "6b6579",
        keyEncoding: "hex",
        header: "X-Sign",
        algorithm: "sha512",
        encoding: "base64url",
        prefix: "v9=",
        base: "{method} {path}\n{timestamp}.{id}.{body}",
        timestampHeader: "X-Time",
        idHeader: "X-Id",
      },
      headers: {
        "x-sign":
          "v9=elaniWH_W61nYfEi5LCHdWobclqci14nmJxh0HzwUwXEKao5QMQmT2kwAm5uElH4Ab4jcMP_Iq0CsmL_5qLx-w",
        "x-time": "1700000000",
        "x-id": "e1",
      },
      body: "{}",
      at: 1700000000,
    },
  ],
  [
    // Derived with Python's hmac over "1671552777:{…}": as Paddle writes it while keys are turned.
    "hmac in a list with its time, derived",
    {
      verify: {
        scheme: "hmac",
        secret: "pdl_ntfset_secret",
        header: "Paddle-Signature",
        base: "{timestamp}:{body}",
        list: { separator: ";", timestamp: "ts", signature: "h1" },
      },
      headers: {
        "paddle-signature":
          "ts=1671552777;h1=00;h1=bdd93b6940aa2eeae7a296d3fe2216f4449f3f84b374b353cef0038487b63279",
      },
      body: '{"event_id":"evt_1"}',
      at: 1671552777,
    },
  ],
  [
    // Derived with Python's hmac over id, time and body with nothing between, as Twitch has it.
    "hmac with a date as its time, derived",
    {
      verify: {
        scheme: "hmac",
        secret: "s3cRe7",
        header: "Twitch-Eventsub-Message-Signature",
        prefix: "sha256=",
        base: "{id}{timestamp}{body}",
        idHeader: "Twitch-Eventsub-Message-Id",
        timestampHeader: "Twitch-Eventsub-Message-Timestamp",
      },
      headers: {
        "twitch-eventsub-message-id": "e76c6bd4-55c9-4987-8304-da1588d8988b",
        "twitch-eventsub-message-timestamp": "2019-11-16T10:11:12.634234626Z",
        "twitch-eventsub-message-signature":
          "sha256=1809fedbffcdb37a0c2f83f39fe3bab27c6d7197c02d04baa464d0e11fa34802",
      },
      body: '{"challenge":"pogchamp"}',
      at: 1573899072,
    },
  ],
  [
    "basic, by RFC 7617",
    {
      verify: { scheme: "basic", username: "Aladdin", password: "open sesame" },
      headers: { authorization: "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" },
      body: "",
    },
  ],
  [
    "bearer, by RFC 6750",
    {
      verify: { scheme: "bearer", secret: "mF_9.B5f-4.1JqM" },
      headers: { authorization: "Bearer mF_9.B5f-4.1JqM" },
      body: "",
    },
  ],
];

test.each(VECTORS)("%s", async (_name, sent) => {
  expect(await outcomeOf(sent)).toBe("key 1");
  expect(await outcomeOf({ ...sent, headers: {} })).toBe("signature-invalid");
});

test("every scheme has one; those of tokens and certificates are held beside, in the proofs", () => {
  const held = new Set<unknown>(VECTORS.map(([, { verify }]) => verify["scheme"]));
  expect(VERIFY_SCHEMES.filter((scheme) => !held.has(scheme))).toEqual(["jwt", "mtls"]);
});

test.each([
  ["f7f9bd47fb987337b5796fdc1fdb9ba221d0d5396814bfcaf9521f43fd8927fd", ""],
  [
    "bebb1a643997f419b315ddba19e6f5411e1ce7f810ba6d3617ce72823092f363",
    '{"obj1":"hello","obj2":"world"}',
  ],
  ["837da296d05c4fe31f61d5d7ead035099d9585a5bcde87de952012a78f0b0c43", "😀"],
])("the MAC that stripe's library computes: %s", async (mac, body) => {
  const verify = { scheme: "hmac", secret: "test_secret", header: "x-mac" };
  expect(await outcomeOf({ verify, headers: { "x-mac": mac }, body })).toBe("key 1");
});

test("a time in a list or a date is too old and too new, and must be there once", async () => {
  for (const [name, sent] of VECTORS.filter(([each]) => /list|date/.test(each))) {
    const at = sent.at ?? 0;
    for (const late of [-301, 302]) {
      const outcome = await outcomeOf({ ...sent, at: at + late });
      expect([name, outcome]).toEqual([name, "timestamp-outside-tolerance"]);
    }
  }
  const [, listed] = VECTORS.find(([name]) => name.includes("list")) ?? [];
  if (listed === undefined) throw new Error("the vector is gone");
  const header = listed.headers["paddle-signature"] ?? "";
  for (const changed of [
    header.replace("ts=1671552777;", ""),
    `${header};ts=1671552777`,
    header.replaceAll("h1=", "h2="),
    header.replaceAll(";", ","),
    header.replace("ts=1671552777", "ts=2022-12-20T16:12:57Z"),
  ]) {
    const headers = { "paddle-signature": changed };
    expect(await outcomeOf({ ...listed, headers })).toBe("signature-invalid");
  }
});

test("three products use a whsec_ secret in two ways, and neither passes for the other", async () => {
  const asStripe = { ...STANDARD, verify: { ...STANDARD.verify, scheme: "stripe" } };
  expect(await outcomeOf(asStripe)).toBe("signature-invalid");
});

test("a body that twilio did not sign is refused, whatever kind it is", async () => {
  const url = "https://mycompany.com/myapp.php?foo=1&bar=2";
  const plain = twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", url, TWILIO_BODY);
  const asText = { ...plain.headers, "content-type": "text/plain" };
  expect(await outcomeOf({ ...plain, headers: asText })).toBe("signature-invalid");
  const signed = `${url}&bodySHA256=${TWILIO_HASH}`;
  const json = twilio("a9nBmqA0ju/hNViExpshrM61xv4=", signed, `${TWILIO_JSON} `);
  expect(await outcomeOf(json)).toBe("signature-invalid");
});
