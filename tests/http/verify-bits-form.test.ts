/**
 * Forms as Twilio signs them: over the fields that the body means, so that a change of a bit that
 * means something is refused. Bytes that are no text mean nothing, and are never taken.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/http/verify-bits-form; more: ISTHMUS_TEST_FULL=1
 */
import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { outcomeOf } from "./verify/check.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 50_000 : 1000;
const URL_CALLED = "https://hooks.example/hooks/h?foo=1";
const TOKEN = "12345";

type Fields = readonly (readonly [string, string])[];

/** By Twilio's own description: names in order, each with its values, each of these once. */
function signatureOf(fields: Fields): string {
  const names = [...new Set(fields.map(([name]) => name))].sort();
  const text = names.map((name) => {
    const values = new Set(fields.filter(([own]) => own === name).map(([, value]) => value));
    return [...values]
      .sort()
      .map((value) => `${name}${value}`)
      .join("");
  });
  return createHmac("sha1", TOKEN)
    .update(`${URL_CALLED}${text.join("")}`)
    .digest("base64");
}

async function outcome(body: string | Uint8Array, signature: string): Promise<string> {
  return await outcomeOf({
    verify: { scheme: "twilio", secret: TOKEN },
    headers: {
      "x-twilio-signature": signature,
      "content-type": "application/x-www-form-urlencoded",
    },
    body,
    url: URL_CALLED,
  });
}

/** `%2b` and `%2B` are one sign in two spellings: it is the sign that is signed. */
function withoutSpelling(body: Uint8Array): string {
  return Buffer.from(body)
    .toString("latin1")
    .replace(/%[0-9a-f]{2}/gi, (escape) => escape.toUpperCase());
}

test(`a form with one bit changed is refused (seed ${seed})`, async () => {
  const part = fc.string({ unit: "binary", maxLength: 12 });
  const forms = fc.array(fc.tuple(fc.string({ minLength: 1, maxLength: 5 }), part), {
    minLength: 1,
    maxLength: 6,
  });
  const property = fc.asyncProperty(forms, fc.nat(), async (fields, at) => {
    const body = Buffer.from(new URLSearchParams(fields.map(([...pair]) => pair)).toString());
    const signature = signatureOf(fields);
    expect(await outcome(body, signature)).toBe("key 1");
    const changed = Buffer.from(body);
    const bit = at % (body.length * 8);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    if (withoutSpelling(changed) === withoutSpelling(body)) return;
    expect(await outcome(changed, signature)).toBe("signature-invalid");
  });
  await fc.assert(property, { seed, numRuns: RUNS });
}, 600_000);

test.each([
  ["bytes that are no UTF-8", Buffer.from([0x61, 0x3d, 0xff])],
  ["escapes that are no UTF-8", Buffer.from("a=%FF")],
  ["an escape that is none", Buffer.from("a=%zz")],
])("a form with %s is refused, whatever is signed", async (_what, body) => {
  for (const read of ["�", "%zz"]) {
    expect(await outcome(body, signatureOf([["a", read]]))).toBe("signature-invalid");
  }
});
