/** Proofs that are no signature of the body: a proxy's word on a certificate, and tokens. */
import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { define, SECRET, verifiedServer } from "./server.ts";
import { outcomeOf, type Sent } from "./check.ts";
import { ShiftedClock, type TestServer } from "../support.ts";

const HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
const XFCC = "x-forwarded-client-cert";
/** From Envoy's documentation, with a comma and a quote in the subject. */
const ELEMENT = `By=http://front.lyft.com;Hash=${HASH};Subject="/C=US/O=\\"A, B\\"/CN=Test Client";URI=http://testclient.lyft.com;URI=spiffe://a/b`;
const OTHER = `Hash=${"ab".repeat(32)};Subject="CN=other"`;

function mtls(verify: Sent["verify"], headers: Sent["headers"], isProxied = true): Sent {
  return { verify: { scheme: "mtls", ...verify }, headers, body: "{}", isProxied };
}

test.each<[string, Sent, string]>([
  ["a fingerprint", mtls({ fingerprint: HASH }, { [XFCC]: ELEMENT }), "key 1"],
  [
    "one with colons and capitals",
    mtls(
      { fingerprints: ["00".repeat(32), (HASH.match(/../g) ?? []).join(":").toUpperCase()] },
      {
        [XFCC]: ELEMENT,
      },
    ),
    "key 2",
  ],
  ["a subject", mtls({ subject: '/C=US/O="A, B"/CN=Test Client' }, { [XFCC]: ELEMENT }), "key 1"],
  ["any of its URIs", mtls({ uri: "spiffe://a/b" }, { [XFCC]: ELEMENT }), "key 1"],
  [
    "the nearest proxy's",
    mtls({ uri: "spiffe://a/b" }, { [XFCC]: `${OTHER},${ELEMENT}` }),
    "key 1",
  ],
  [
    "nginx's",
    mtls(
      { header: "SSL-Client-S-DN", verifiedHeader: "ssl-client-verify", subject: "CN=a,O=b" },
      { "ssl-client-s-dn": "CN=a,O=b", "ssl-client-verify": "SUCCESS" },
    ),
    "key 1",
  ],
])("%s lets a sender in through a trusted proxy only", async (_name, sent, key) => {
  expect(await outcomeOf(sent)).toBe(key);
  expect(await outcomeOf({ ...sent, isProxied: false })).toBe("signature-invalid");
});

test.each<[string, Sent]>([
  ["what stands further left", mtls({ uri: "spiffe://a/b" }, { [XFCC]: `${ELEMENT},${OTHER}` })],
  ["another certificate", mtls({ fingerprint: HASH }, { [XFCC]: OTHER })],
  ["nothing", mtls({ fingerprint: HASH }, {})],
  [
    "a certificate that the proxy could not check",
    mtls(
      { header: "ssl-client-s-dn", verifiedHeader: "ssl-client-verify", subject: "CN=a" },
      { "ssl-client-s-dn": "CN=a", "ssl-client-verify": "FAILED:self signed" },
    ),
  ],
  ["scraps for a certificate", mtls({ header: "c", format: "pem", fingerprint: HASH }, { c: "%" })],
])("%s does not", async (_name, sent) => {
  expect(await outcomeOf(sent)).toBe("signature-invalid");
});

test("a certificate as PEM is known by its fingerprint and its subject", async () => {
  // Made with OpenSSL: req -x509 -newkey ed25519 -nodes -subj "/CN=sender".
  const made = Bun.spawnSync([
    ..."openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -days 2 -subj".split(" "),
    "/CN=sender",
  ]);
  const pem = made.stdout.toString();
  expect(made.exitCode).toBe(0);
  const der = Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
  const fingerprint = createHash("sha256").update(der).digest("hex");
  const verify = { header: "ssl-client-cert", format: "pem" };
  const headers = { "ssl-client-cert": encodeURIComponent(pem) };
  expect(await outcomeOf(mtls({ ...verify, fingerprint }, headers))).toBe("key 1");
  expect(await outcomeOf(mtls({ ...verify, subject: "CN=sender" }, headers))).toBe("key 1");
  expect(await outcomeOf(mtls({ ...verify, subject: "CN=other" }, headers))).toBe(
    "signature-invalid",
  );
});

function post(server: TestServer, headers: Record<string, string>, body = "x") {
  return server.call("POST", "/hooks/in", { body, headers, token: null });
}

async function token(claims: JWTPayload, secret = SECRET, end = "5m"): Promise<string> {
  const signer = new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).setExpirationTime(end);
  return await signer.sign(Buffer.from(secret));
}

test("a token of a shared secret lets its bearer in until it ends, and is not kept", async () => {
  const verify = { scheme: "jwt", secret: SECRET, audience: "us", issuer: "them" };
  await using server = await verifiedServer({ in: { stream: "s", verify } });
  const claims = { sub: "a", aud: "us", iss: "them" };
  const bearer = async (...of: Parameters<typeof token>) =>
    await post(server, { authorization: `Bearer ${await token(...of)}` });
  expect((await bearer(claims)).status).toBe(202);
  const refused = [
    await bearer({ ...claims, aud: "others" }),
    await bearer({ ...claims, iss: "others" }),
    await bearer(claims, "f".repeat(32)),
    await post(server, {}),
    await post(server, { authorization: "Bearer a.b.c" }),
  ];
  expect(refused.map(({ status, json }) => [status, json["code"]])).toEqual(
    Array(5).fill([401, "signature-invalid"]),
  );
  const late = await bearer(claims, SECRET, "-5m");
  expect([late.status, late.json["code"]]).toEqual([401, "timestamp-outside-tolerance"]);
  await define(server, "in", { stream: "s", verify: { ...verify, header: "X-Token" } });
  expect((await post(server, { "x-token": await token(claims) })).status).toBe(202);
  const page = await server.call("GET", "/streams/s/messages");
  expect(page.json["messages"]).toHaveLength(2);
  expect(page.text).not.toContain("eyJ");
  const again = await server.call("GET", "/api/verifications/s/0/1");
  expect([again.status, again.text]).toEqual([400, expect.stringContaining("which is not kept")]);
});

test("keys of a JWKS are fetched when they are needed; without them it is a 503", async () => {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const jwk = { ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256" };
  let status = 500;
  using jwks = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: () => Response.json({ keys: [jwk] }, { status }),
  });
  const clock = new ShiftedClock();
  const verify = { scheme: "jwt", jwks: `http://127.0.0.1:${jwks.port}/`, audience: "us" };
  await using server = await verifiedServer({ in: { stream: "s", verify } }, { clock });
  const signed = await new SignJWT({ sub: "a", aud: "us" })
    .setProtectedHeader({ alg: "ES256", kid: "k1" })
    .setExpirationTime("5m")
    .sign(privateKey);
  const headers = { authorization: `Bearer ${signed}` };
  const away = await post(server, headers);
  expect([away.status, away.json["code"]]).toEqual([503, "keys-unavailable"]);
  status = 200;
  clock.shiftMs += 10_000;
  expect((await post(server, headers)).status).toBe(202);
  const { json } = await server.call("GET", "/api/hooks/in");
  expect(json["status"]).toMatchObject({ keys: [{ id: "jwks", lastUsedAt: expect.any(Number) }] });
});

test("the ES256 example of RFC 7515 is taken at its time, and by no other key or text", async () => {
  const [head, claims, signature] = [
    "eyJhbGciOiJFUzI1NiJ9",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
  ];
  const example = {
    kty: "EC",
    crv: "P-256",
    x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
  };
  const other = await exportJWK((await generateKeyPair("ES256")).publicKey);
  using jwks = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: ({ url }) => Response.json({ keys: [url.endsWith("/example") ? example : other] }),
  });
  const clock = new ShiftedClock();
  clock.shiftMs = 1_300_819_000_000 - clock.nowMs();
  const hook = (path: string) => ({
    stream: "s",
    verify: {
      scheme: "jwt",
      jwks: `http://127.0.0.1:${jwks.port}/${path}`,
      issuer: "joe",
      subject: "iss",
    },
  });
  const hooks = { in: hook("example"), other: hook("other") };
  await using server = await verifiedServer(hooks, { clock });
  const send = async (name: string, text: string) => {
    const headers = { authorization: `Bearer ${text}` };
    const answer = await server.call("POST", `/hooks/${name}`, {
      body: "{}",
      headers,
      token: null,
    });
    return answer.status === 202 ? "taken" : answer.json["code"];
  };
  const token = `${head}.${claims}.${signature}`;
  expect(await send("in", token)).toBe("taken");
  expect(await send("other", token)).toBe("signature-invalid");
  expect(await send("in", `${head}.${claims}.${signature}`.replace(".eyJp", ".eyJq"))).toBe(
    "signature-invalid",
  );
  clock.shiftMs += 3_600_000;
  expect(await send("in", token)).toBe("timestamp-outside-tolerance");
});

test("when a key was last used is known after a change of its hook, too", async () => {
  const verify = { scheme: "bearer", secret: SECRET };
  await using server = await verifiedServer({ in: { stream: "s", verify } });
  await post(server, { authorization: `Bearer ${SECRET}` });
  const keys = async () => {
    const { json } = await server.call("GET", "/api/hooks/in");
    return (json["status"] as { keys: { lastUsedAt: number | null }[] }).keys;
  };
  const [before] = await keys();
  while ((await server.log.states.load("hook-keys/in")) === null) await Bun.sleep(5);
  await define(server, "in", { stream: "s", verify, key: "body.a" });
  // The first call makes the verifier; its keys and their uses are read then.
  await post(server, { authorization: "Bearer other" });
  expect(await keys()).toEqual([before as { lastUsedAt: number }]);
});

test("a member of a body is given back where the hook says so, and events are kept", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "none", echo: { member: "challenge", as: "json" } } },
    when: {
      stream: "s",
      verify: { scheme: "none", echo: { member: "data.code", when: 'body.type == "ask"' } },
    },
    signed: { stream: "s", verify: { scheme: "bearer", secret: "t", echo: { member: "c" } } },
    graph: { stream: "s", verify: { scheme: "none", challenge: "validationToken" } },
  });
  const send = (hook: string, body: string) =>
    server.call("POST", `/hooks/${hook}`, { body, token: null });
  expect((await send("in", '{"challenge":"3eZ"}')).text).toBe('{"challenge":"3eZ"}');
  expect((await send("in", '{"challenge":"3eZ","id":1}')).status).toBe(202);
  const asked = await send("when", '{"type":"ask","data":{"code":"c1","n":1}}');
  expect([asked.status, asked.text]).toEqual([200, "c1"]);
  expect((await send("when", '{"type":"event","data":{"code":"c1"}}')).status).toBe(202);
  expect((await send("signed", '{"c":"1"}')).status).toBe(401);
  const graph = await send("graph?validationToken=a%20b", "");
  expect([graph.status, graph.text, graph.headers.get("content-type")]).toEqual([
    200,
    "a b",
    "text/plain; charset=utf-8",
  ]);
  expect((await send("graph?validationToken=a", "{}")).status).toBe(202);
});
