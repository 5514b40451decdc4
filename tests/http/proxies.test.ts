/** Whom a call is taken to come from, when proxies stand between. */
import { expect, test } from "bun:test";
import { Proxies, parseProxies } from "../../src/http/proxies.ts";

const proxies = new Proxies(["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);

function caller(peer: string | null, headers: Readonly<Record<string, string>>) {
  return proxies.caller(new Headers(headers), peer);
}

const X = "x-forwarded-for";

test.each<[string, Readonly<Record<string, string>>, string]>([
  ["203.0.113.9", { [X]: "198.51.100.1" }, "203.0.113.9"],
  ["10.0.0.1", { [X]: "198.51.100.1" }, "198.51.100.1"],
  ["::ffff:10.0.0.1", { [X]: "198.51.100.1:4711" }, "198.51.100.1"],
  ["10.0.0.1", { [X]: "6.6.6.6, 198.51.100.1, 10.0.0.2" }, "198.51.100.1"],
  ["10.0.0.1", { [X]: "10.0.0.3, 10.0.0.2" }, "10.0.0.3"],
  ["10.0.0.1", { [X]: "6.6.6.6, unknown" }, "10.0.0.1"],
  ["10.0.0.1", {}, "10.0.0.1"],
  ["192.0.2.7", { forwarded: 'for=6.6.6.6, For="[2001:db8::1]:47";proto=https' }, "2001:db8::1"],
  ["fd00::1", { forwarded: "for=_hidden, for=10.9.9.9" }, "10.9.9.9"],
  ["10.0.0.1", { forwarded: "for=6.6.6.6", [X]: "198.51.100.1" }, "10.0.0.1"],
  ["10.0.0.1", { forwarded: "for=198.51.100.1", [X]: "198.51.100.1" }, "198.51.100.1"],
])("%s with %j is %s", (peer, headers, address) => {
  expect(caller(peer, headers).address).toBe(address);
});

test("protocol and host come from the outermost trusted proxy, and from nobody else", () => {
  const told = { [X]: "6.6.6.6, 198.51.100.1, 10.0.0.2", "x-forwarded-proto": "http, https, http" };
  const host = "x-forwarded-host";
  expect(caller("10.0.0.1", { ...told, [host]: "evil.example, a.example, b.internal" })).toEqual({
    address: "198.51.100.1",
    protocol: "https",
    host: "a.example",
    isProxied: true,
  });
  expect(caller("10.0.0.1", { ...told, host: "a.example:8443" }).host).toBe("a.example:8443");
  expect(caller("10.0.0.1", { ...told, [host]: "a/b" }).host).toBeNull();
  expect(caller("203.0.113.9", { ...told, [host]: "a.example" })).toEqual({
    address: "203.0.113.9",
    protocol: null,
    host: null,
    isProxied: false,
  });
  expect(caller(null, told)).toMatchObject({ address: null, isProxied: false });
});

test("a setting that is no list of CIDRs is refused by name", () => {
  expect(parseProxies(" 10.0.0.0/8,fd00::/8 127.0.0.1")).toHaveLength(3);
  for (const bad of ["10.0.0.0/33", "10.0.0/8", "loopback", "fd00::/129", "10.0.0.0/8/8", "1/x"]) {
    expect(() => parseProxies(`127.0.0.1, ${bad}`)).toThrow(
      `ISTHMUS_TRUST_PROXIES: "${bad}" is no CIDR; expected addresses or CIDRs such as 10.0.0.0/8`,
    );
  }
});
