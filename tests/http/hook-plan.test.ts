/** Origins of webhooks that are kept and used again: equal to those made anew, and bounded. */
import { expect, test } from "bun:test";
import { type Called, HookOrigins } from "../../src/http/hook-plan.ts";
import { hookOriginsMax } from "../../src/limits.ts";
import { originText } from "../../src/message.ts";

const CALL: Called = {
  method: "POST",
  url: "http://localhost:1/hooks/orders",
  address: "192.0.2.1",
  signedUrl: null,
  keyId: "none",
  inflated: null,
};

test("a sender that comes again has the very same origin, and its JSON is that of the origin", () => {
  const origins = new HookOrigins("orders", "none");
  const origin = origins.of(CALL);
  expect(origins.of({ ...CALL })).toBe(origin);
  expect(originText(origin)).toBe(JSON.stringify(origin));
  expect(origin).toEqual({
    bridge: "http",
    address: "orders",
    partition: null,
    offset: null,
    hops: [],
    http: {
      method: "POST",
      path: "/hooks/orders",
      remoteAddress: "192.0.2.1",
      scheme: "none",
      keyId: "none",
    },
  });
});

test.each<[string, Partial<Called>, string]>([
  ["method", { method: "PUT" }, '"method":"PUT"'],
  ["path", { url: "http://localhost:1/hooks/%6frders" }, '"path":"/hooks/%6frders"'],
  ["query", { url: `${CALL.url}?a=1` }, '"query":"?a=1"'],
  ["address", { address: "192.0.2.2" }, '"remoteAddress":"192.0.2.2"'],
  ["signed URL", { signedUrl: "https://a/b" }, '"url":"https://a/b"'],
  ["key", { keyId: "k2" }, '"keyId":"k2"'],
  ["coding", { inflated: "gzip" }, '"inflated":"gzip"'],
])("another %s is another origin", (_, change, part) => {
  const origins = new HookOrigins("orders", "stripe");
  const first = originText(origins.of(CALL));
  const other = originText(origins.of({ ...CALL, ...change }));
  expect(other).toContain(part);
  expect(first).not.toContain(part);
  expect(originText(origins.of(CALL))).toBe(first);
});

test("more senders than are kept each have their own origin", () => {
  const origins = new HookOrigins("orders", "none");
  for (let round = 0; round < 2; round++) {
    for (let index = 0; index < hookOriginsMax + 10; index++) {
      const address = `10.0.${index >> 8}.${index & 255}`;
      expect(origins.of({ ...CALL, address }).http?.remoteAddress).toBe(address);
    }
  }
});

test("a caller without an address has none in its origin", () => {
  const { http } = new HookOrigins("orders", "none").of({ ...CALL, address: null });
  expect(http).not.toHaveProperty("remoteAddress");
});
