/** The guard of HTTP targets: which addresses may be reached. */
import { describe, expect, test } from "bun:test";
import type { LookupAddress } from "node:dns";
import {
  addressBytes,
  ForbiddenAddressError,
  Guard,
  isAllowEntry,
} from "../../../bridges/http/guard.ts";
import { http } from "../../../bridges/http/module.ts";
import { InvalidError } from "../../../src/errors.ts";

const forbidden = [
  "0.0.0.0",
  "0.1.2.3",
  "10.0.0.1",
  "10.255.255.255",
  "100.64.0.1",
  "100.127.255.255",
  "127.0.0.1",
  "127.255.0.1",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.0.0.1",
  "192.0.2.1",
  "192.88.99.1",
  "192.168.1.1",
  "198.18.0.1",
  "198.19.255.255",
  "198.51.100.1",
  "203.0.113.1",
  "224.0.0.1",
  "239.1.1.1",
  "240.0.0.1",
  "255.255.255.255",
  "::",
  "::1",
  "::127.0.0.1",
  "::ffff:127.0.0.1",
  "::ffff:8.8.8.8",
  "::ffff:7f00:1",
  "::ffff:0:127.0.0.1",
  "64:ff9b::7f00:1",
  "64:ff9b:1::1",
  "100::1",
  "2001::1",
  "2001:2::1",
  "2001:20::1",
  "2001:db8::1",
  "2002:7f00:1::",
  "3fff::1",
  "fc00::1",
  "fd00:ec2::254",
  "fe80::1",
  "fe80::1%eth0",
  "febf::1",
  "fec0::1",
  "ff02::1",
  "4000::1",
];

const open = [
  "1.1.1.1",
  "8.8.8.8",
  "9.255.255.255",
  "11.0.0.0",
  "100.63.255.255",
  "100.128.0.0",
  "126.255.255.255",
  "128.0.0.0",
  "169.253.255.255",
  "172.15.255.255",
  "172.32.0.0",
  "192.167.255.255",
  "192.169.0.0",
  "198.17.255.255",
  "198.20.0.0",
  "223.255.255.255",
  "2606:4700::1111",
  "2001:4860:4860::8888",
  "2a00::1",
];

describe("the addresses of webhook targets", () => {
  const guard = new Guard([]);

  test("are refused when they are not public", () => {
    for (const address of forbidden) {
      expect([address, guard.problem("a.example", address)]).toEqual([address, expect.any(String)]);
    }
  });

  test("are allowed when they are", () => {
    for (const address of open) {
      expect([address, guard.problem("a.example", address)]).toEqual([address, null]);
    }
  });

  test("are read as the bytes that they are", () => {
    expect(addressBytes("1.2.3.4")).toEqual(Uint8Array.of(1, 2, 3, 4));
    expect(addressBytes("::1")?.at(-1)).toBe(1);
    const mapped = Uint8Array.from([...new Uint8Array(10), 255, 255, 1, 2, 3, 4]);
    expect(addressBytes("::ffff:1.2.3.4")).toEqual(mapped);
    expect(addressBytes("0:0:0:0:0:ffff:102:304")).toEqual(mapped);
    expect(addressBytes("1.2.3")).toBeNull();
    expect(addressBytes("a.example")).toBeNull();
  });

  test("are allowed by range, by address and by the host's name, and no further", () => {
    const some = new Guard(["10.1.0.0/16", "::1", "Inside.Example", "fd00::/8"]);
    expect(some.problem("a", "10.1.2.3")).toBeNull();
    expect(some.problem("a", "::ffff:10.1.2.3")).toBeNull();
    expect(some.problem("a", "::1")).toBeNull();
    expect(some.problem("a", "fd12::1")).toBeNull();
    expect(some.problem("inside.example", "192.168.0.1")).toBeNull();
    expect(some.problem("a", "10.2.0.1")).toContain("a private address");
    expect(some.problem("x.inside.example", "192.168.0.1")).toContain("allowPrivate");
    expect(some.problem("a", "127.0.0.1")).toContain("a loopback address");
  });

  test("are checked after the name was resolved", async () => {
    const lookup = (hosts: readonly string[], name: string) =>
      new Promise<unknown>((resolve) => {
        new Guard(hosts).lookup(name, { all: true }, (error, addresses) => {
          resolve(error ?? addresses);
        });
      });
    expect(await lookup([], "localhost")).toBeInstanceOf(ForbiddenAddressError);
    const found = (await lookup(["127.0.0.0/8", "::1"], "localhost")) as readonly LookupAddress[];
    expect(found.length).toBeGreaterThan(0);
  });

  test("may be given as ranges, addresses and names only", () => {
    for (const entry of ["10.0.0.0/8", "::/0", "1.2.3.4", "a.example", "host_1", "localhost"]) {
      expect([entry, isAllowEntry(entry)]).toEqual([entry, true]);
    }
    for (const entry of [
      "",
      "10.0.0.0/33",
      "10.0.0/8",
      "1.2.3",
      "*.example",
      "a b",
      "http://a",
      "::1/129",
    ]) {
      expect([entry, isAllowEntry(entry)]).toEqual([entry, false]);
    }
  });
});

describe("the document of a webhook target", () => {
  function pointers(input: unknown): string[] {
    try {
      http.parseConfig(input);
      return [];
    } catch (error) {
      if (error instanceof InvalidError) return error.errors.map((detail) => detail.pointer);
      throw error;
    }
  }

  test("is refused when its host is an address that is not public, however it is written", () => {
    for (const host of [
      "127.0.0.1",
      "0x7f000001",
      "2130706433",
      "127.1",
      "017700000001",
      "127.0.0.1.",
      "①②⑦.0.0.1",
      "[::ffff:7f00:1]",
      "[::1]",
      "0.0.0.0",
      "169.254.169.254",
    ]) {
      expect([host, pointers({ url: `http://${host}/in` })]).toEqual([host, ["/url"]]);
    }
    expect(pointers({ url: "http://127.0.0.1/in", allowPrivate: ["127.0.0.0/8"] })).toEqual([]);
  });

  test("is refused with a pointer to what is wrong", () => {
    for (const url of [
      "file:///etc/hostname",
      "data:text/plain,a",
      "ftp://a",
      "a",
      "http://a/#b",
      "http://a:0/",
      "https://user:password@crm.example/in",
      "https://user@crm.example/in",
      "https://user:${secret:bridges.crm.url}@crm.example/in",
    ]) {
      expect(pointers({ url })).toEqual(["/url"]);
    }
    const url = "https://crm.example/in";
    expect(pointers({ url, headers: { "a b": "c" } })).toEqual(["/headers/a b"]);
    expect(pointers({ url, headers: { a: "b\r\nc: d" } })).toEqual(["/headers/a"]);
    expect(pointers({ url, method: "GET" })).toEqual(["/method"]);
    expect(pointers({ url, timeout: "soon" })).toEqual(["/timeout"]);
    expect(pointers({ url, allowPrivate: ["10.0.0.0/99"] })).toEqual(["/allowPrivate/0"]);
    expect(pointers({ url, urls: [] })).toEqual(["/urls"]);
  });

  test("keeps references unresolved and its defaults filled in", () => {
    expect(
      http.parseConfig({ url: "${env:CRM}", headers: { Authorization: "Bearer ${env:T}" } }),
    ).toEqual({
      url: "${env:CRM}",
      method: "POST",
      headers: { authorization: "Bearer ${env:T}" },
      timeoutMs: 10_000,
      allowPrivate: [],
    });
  });
});
