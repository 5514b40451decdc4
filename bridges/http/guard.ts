/**
 * Which addresses a webhook may go to. A URL that a user wrote, or a name that a stranger resolves,
 * must not lead into the machine or the network behind it; so by default only public addresses are
 * allowed. The check is made on the address that is connected to, after resolution: a name that
 * resolves to something else the next moment (DNS rebinding) is checked then, too.
 */
import { lookup, type LookupAddress, type LookupAllOptions } from "node:dns";
import { isIP, type LookupFunction } from "node:net";

/** An address range: its first bytes and how many bits of them count. */
interface Range {
  readonly bytes: Uint8Array;
  readonly bits: number;
}

/** Ranges that are refused unless allowed, with what they are. */
const REFUSED: readonly (readonly [string, string])[] = [
  ["0.0.0.0/8", "an unspecified address"],
  ["10.0.0.0/8", "a private address"],
  ["100.64.0.0/10", "a shared (carrier) address"],
  ["127.0.0.0/8", "a loopback address"],
  ["169.254.0.0/16", "a link-local address"],
  ["172.16.0.0/12", "a private address"],
  ["192.0.0.0/24", "a reserved address"],
  ["192.0.2.0/24", "a documentation address"],
  ["192.88.99.0/24", "a 6to4 relay address"],
  ["192.168.0.0/16", "a private address"],
  ["198.18.0.0/15", "a benchmarking address"],
  ["198.51.100.0/24", "a documentation address"],
  ["203.0.113.0/24", "a documentation address"],
  ["224.0.0.0/4", "a multicast address"],
  ["240.0.0.0/4", "a reserved address"],
  ["::1/128", "a loopback address"],
  ["::/128", "an unspecified address"],
  ["::ffff:0:0/96", "an IPv4-mapped address"],
  ["::ffff:0:0:0/96", "an IPv4-translated address"],
  ["::/96", "an IPv4-compatible address"],
  ["64:ff9b::/96", "a NAT64 address"],
  ["64:ff9b:1::/48", "a NAT64 address"],
  ["2001::/32", "a Teredo address"],
  ["2001::/23", "a reserved address"],
  ["2001:db8::/32", "a documentation address"],
  ["2002::/16", "a 6to4 address"],
  ["3fff::/20", "a documentation address"],
  ["fc00::/7", "a private address"],
  ["fe80::/10", "a link-local address"],
  ["fec0::/10", "a site-local address"],
  ["ff00::/8", "a multicast address"],
];

const refusedRanges = REFUSED.map(([text, words]) => ({ range: rangeOf(text), words }));
/** All unicast addresses that are handed out to the public. */
const publicV6 = rangeOf("2000::/3");
const mappedV4 = rangeOf("::ffff:0:0/96");

/** An address that may not be connected to. Its text says which and how to allow it. */
export class ForbiddenAddressError extends Error {}

/** Finds all addresses of a name: the system's resolver, or one of a test. */
export type Resolve = (
  host: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** What a bridge allows beside public addresses. */
export class Guard {
  readonly #ranges: readonly Range[];
  readonly #resolve: Resolve;
  readonly #hosts: ReadonlySet<string>;

  /** Entries of `allowPrivate`: `10.0.0.0/8`, `::1`, or a host's name. */
  constructor(allowPrivate: readonly string[], resolve: Resolve = lookup) {
    this.#resolve = resolve;
    this.#ranges = allowPrivate.flatMap((entry) => parseRange(entry) ?? []);
    this.#hosts = new Set(
      allowPrivate
        .filter((entry) => parseRange(entry) === null)
        .map((entry) => entry.toLowerCase()),
    );
  }

  /** Why an address of a host may not be connected to, or null. */
  problem(host: string, address: string): string | null {
    const bytes = addressBytes(address);
    if (bytes === null) return `${host} resolves to ${address}, which is no address`;
    if (this.#hosts.has(host.toLowerCase())) return null;
    const plain = contains(mappedV4, bytes) ? bytes.subarray(12) : bytes;
    const isAllowed = this.#ranges.some((range) => {
      return contains(range, bytes) || contains(range, plain);
    });
    if (isAllowed) return null;
    const words = wordsOf(bytes);
    if (words === null) return null;
    const subject = host === address ? address : `${host} resolves to ${address}, which`;
    return `${subject} is ${words}; allow it with allowPrivate`;
  }

  /** The problem of a URL's host where it is an address itself; null when it is a name. */
  literalProblem(host: string): string | null {
    const address = host.replace(/^\[|\]$/g, "");
    return isIP(address) === 0 ? null : this.problem(address, address);
  }

  /** Resolves a name for a connection and refuses it when any of its addresses is forbidden. */
  readonly lookup: LookupFunction = (host, options, callback) => {
    this.#resolve(host, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, "", 0);
      for (const { address } of addresses) {
        const problem = this.problem(host, address);
        if (problem !== null) return callback(new ForbiddenAddressError(problem), "", 0);
      }
      answer(addresses, options.all === true, callback);
    });
  };
}

function answer(
  addresses: readonly LookupAddress[],
  all: boolean,
  callback: Parameters<LookupFunction>[2],
): void {
  const [first] = addresses;
  if (all) callback(null, [...addresses]);
  else if (first === undefined) callback(new Error("the name resolves to nothing"), "", 0);
  else callback(null, first.address, first.family);
}

function wordsOf(bytes: Uint8Array): string | null {
  const found = refusedRanges.find(({ range }) => contains(range, bytes));
  if (found !== undefined) return found.words;
  return bytes.length === 16 && !contains(publicV6, bytes) ? "no public address" : null;
}

function contains(range: Range, bytes: Uint8Array): boolean {
  if (range.bytes.length !== bytes.length) return false;
  for (let index = 0; index * 8 < range.bits; index += 1) {
    const bits = Math.min(8, range.bits - index * 8);
    const mask = (0xff << (8 - bits)) & 0xff;
    if ((((range.bytes[index] ?? 0) ^ (bytes[index] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

/** Whether an entry of `allowPrivate` can mean something: a range, an address, or a host's name. */
export function isAllowEntry(entry: string): boolean {
  if (parseRange(entry) !== null) return true;
  return (
    /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i.test(
      entry,
    ) && !/^[\d.]+$/.test(entry)
  );
}

/** `10.0.0.0/8` or one address; null for anything else. */
function parseRange(text: string): Range | null {
  const [address = "", bitsText, ...more] = text.split("/");
  const bytes = addressBytes(address);
  if (bytes === null || more.length > 0) return null;
  if (bitsText === undefined) return { bytes, bits: bytes.length * 8 };
  const bits = /^\d{1,3}$/.test(bitsText) ? Number(bitsText) : -1;
  return bits >= 0 && bits <= bytes.length * 8 ? { bytes, bits } : null;
}

function rangeOf(text: string): Range {
  const range = parseRange(text);
  if (range === null) throw new TypeError(`${text} is no range`);
  return range;
}

/** The 4 or 16 bytes of an address; null for anything else. A zone (`%eth0`) does not count. */
export function addressBytes(text: string): Uint8Array | null {
  const address = text.split("%")[0] ?? "";
  const version = isIP(address);
  if (version === 4) return Uint8Array.from(address.split(".").map(Number));
  if (version !== 6) return null;
  const [head = "", tail] = address.split("::");
  const front = groupsOf(head);
  const back = tail === undefined ? [] : groupsOf(tail);
  const zeros = Array.from({ length: 8 - front.length - back.length }, () => 0);
  const groups = [...front, ...zeros, ...back];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

/** The 16-bit groups of a part of an IPv6 address, which may end in dotted IPv4. */
function groupsOf(text: string): number[] {
  if (text === "") return [];
  return text.split(":").flatMap((group) => {
    if (!group.includes(".")) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = group.split(".").map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}
