/** JWTs by fixed keys, and limits' and origins' settings: what is taken and what is refused. */
import { expect, test } from "bun:test";
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from "jose";
import { systemClock } from "../../src/clock.ts";
import { InvalidError, KeysUnavailableError, UnauthorizedError } from "../../src/errors.ts";
import { parseClientLimits } from "../../src/http/client-limits.ts";
import { JwtVerifier } from "../../src/http/jwt.ts";
import { Origins } from "../../src/http/origins.ts";
import { Tickets } from "../../src/http/tickets.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { parseJwt } from "../../src/rules/jwt.ts";
import { Problems } from "../../src/rules/problems.ts";

function verifier(settings: JsonObject): JwtVerifier {
  const problems = new Problems();
  const document = parseJwt(settings, "", problems);
  problems.throwIfAny("jwt");
  if (document === null) throw new Error("no document");
  const resolve = (text: string): Promise<string> => {
    if (text.includes("${")) return Promise.reject(new InvalidError("it is not there"));
    return Promise.resolve(text);
  };
  return new JwtVerifier(document, { resolve, clock: systemClock, fetch });
}

const secret = "a secret of at least thirty-two bytes";

test.each(["RS256", "ES256", "EdDSA"])("%s is proven by PEM and by JWK", async (alg) => {
  const pair = await generateKeyPair(alg, { extractable: true });
  const other = await generateKeyPair("ES256", { extractable: true });
  const token = await new SignJWT({ sub: "ann", n: 1 })
    .setProtectedHeader({ alg })
    .setExpirationTime("1m")
    .sign(pair.privateKey);
  const pem = await exportSPKI(pair.publicKey);
  const jwk = JSON.stringify(await exportJWK(pair.publicKey));
  const another = await exportSPKI(other.publicKey);
  for (const publicKeys of [[pem], [jwk], [another, pem]]) {
    const proven = await verifier({ publicKeys }).verify(token);
    expect(proven).toMatchObject({ subject: "ann", claims: { n: 1 } });
  }
  const wrong = verifier({ publicKey: another });
  await expect(wrong.verify(token)).rejects.toBeInstanceOf(UnauthorizedError);
  if (alg === "ES256") return;
  const fixed = verifier({ publicKeys: [another, pem], algorithms: ["ES256"] });
  await expect(fixed.verify(token)).rejects.toBeInstanceOf(KeysUnavailableError);
});

test("HS256 is proven by any of the secrets, and a public key is never one", async () => {
  const token = await new SignJWT({ sub: "ann" })
    .setProtectedHeader({ alg: "HS256" })
    .setExpirationTime("1m")
    .sign(new TextEncoder().encode(secret));
  const both = verifier({ secrets: ["another secret of thirty-two bytes!!", secret] });
  expect((await both.verify(token)).subject).toBe("ann");
  const pair = await generateKeyPair("RS256", { extractable: true });
  const publicKey = await exportSPKI(pair.publicKey);
  const confused = await new SignJWT({ sub: "ann" })
    .setProtectedHeader({ alg: "HS256" })
    .setExpirationTime("1m")
    .sign(new TextEncoder().encode(publicKey));
  await expect(verifier({ publicKey }).verify(confused)).rejects.toBeInstanceOf(UnauthorizedError);
});

test.each([
  [{ secret: "short" }, "32 bytes"],
  [{ secret: "${env:NOT_THERE}" }, "not there"],
  [{ publicKey: "no key" }, "PEM or JWK"],
])("keys that can't be read are said: %j", async (settings, text) => {
  const token = "e30.e30.AA";
  const failing = verifier(settings);
  await expect(failing.verify(token)).rejects.toThrow(text);
  await expect(failing.verify(token)).rejects.toBeInstanceOf(KeysUnavailableError);
  expect(failing.status.error).toContain(text);
});

test.each<[JsonObject, string]>([
  [{ jwks: "http://id.example/jwks", audience: "a" }, "/jwks"],
  [{ jwks: "https://id.example/jwks" }, "/audience"],
  [{ jwks: "https://u:p@id.example/jwks", audience: "a" }, "/jwks"],
  [{ secret, jwks: "https://id.example/jwks" }, "/secret"],
  [{ secret, algorithms: ["RS256"] }, "/algorithms/0"],
  [{ publicKey: "k", algorithms: ["HS256"] }, "/algorithms/0"],
  [{ publicKey: "k", algorithms: ["none"] }, "/algorithms/0"],
  [{ secret, leeway: "1h" }, "/leeway"],
  [{ secret, audiences: "a" }, "/audiences"],
])("settings are refused where they are wrong: %j", (settings, pointer) => {
  const problems = new Problems();
  parseJwt(settings, "", problems);
  try {
    problems.throwIfAny("jwt");
    expect.unreachable();
  } catch (error) {
    expect((error as InvalidError).errors[0]?.pointer).toBe(pointer);
  }
});

test.each([
  ["address.socket=3", 'did you mean "address.sockets"'],
  ["caller.messages=many", "a rate such as"],
  ["caller.bytes=1MiB", "bytes in a time"],
  ["connection.frame=1GiB", "at most 17MiB"],
  ["caller.sockets=0", "a count from 1"],
])("a limit that is wrong is refused: %s", (text, expected) => {
  expect(() => parseClientLimits(text)).toThrow(expected);
});

test("limits are read from their setting", () => {
  const limits = parseClientLimits("caller.bytes=1MiB/s, address.sockets=5 connection.frame=64KiB");
  expect(limits.caller.bytes).toEqual({ count: 1024 * 1024, perMs: 1000 });
  expect([limits.address.sockets, limits.frameBytes]).toEqual([5, 65_536]);
});

test.each([
  ["https://*.a.example", "https://x.y.a.example", true],
  ["https://*.a.example", "https://a.example", false],
  ["https://a.example", "http://a.example", false],
  ["https://a.example", "https://a.example:444", false],
  ["http://localhost:*", "http://localhost:5173", true],
  ["null", "null", true],
  ["https://a.example", "null", false],
  ["*", "https://any.example", true],
])("the origin pattern %s for %s: %p", (pattern, origin, isAllowed) => {
  const origins = new Origins([pattern], null);
  const request = new Request("http://127.0.0.1:1/x", { headers: { origin } });
  if (isAllowed) expect(origins.admit(request)).not.toBeNull();
  else expect(() => origins.admit(request)).toThrow("may not call");
});

test.each(["a.example", "https://a.example/path", "https://*", "https://a*.example"])(
  "%s is no origin",
  (pattern) => {
    expect(() => new Origins([pattern], null)).toThrow(pattern);
  },
);

test("tickets end after 30 seconds, and one caller can't take them all", () => {
  let nowMs = 0;
  const clock = { ...systemClock, nowMs: () => nowMs, monotonicMs: () => nowMs };
  const tickets = new Tickets(clock);
  const none = { tokenId: null, name: "n", role: null, read: [], write: [], expiresAtMs: null };
  const principal = { ...none, subject: "ann" };
  const { ticket, expiresAt } = tickets.issue(principal);
  expect(expiresAt).toBe(30_000);
  nowMs = 29_999;
  expect(tickets.redeem(ticket)).toBe(principal);
  expect(tickets.redeem(ticket)).toBeNull();
  const late = tickets.issue(principal);
  nowMs += 30_000;
  expect(tickets.redeem(late.ticket)).toBeNull();
  for (let index = 0; index < 100; index++) tickets.issue(principal);
  expect(() => tickets.issue(principal)).toThrow("too many tickets");
  expect(tickets.issue({ ...principal, subject: "bob" }).ticket).not.toBe("");
});
