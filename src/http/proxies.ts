/**
 * Who called, when proxies stand between: `Forwarded` (RFC 7239) and `X-Forwarded-*` are believed
 * only from the addresses that the operator trusts, walked from the right, where the nearest proxy
 * has written. What a sender has put into them itself stands further left and is never reached.
 */
import { BlockList, isIP } from "node:net";
import { InvalidError } from "../errors.ts";
import { peersKnownMax, proxiesMax, proxyHopsMax } from "../limits.ts";

/** A caller, as far as trusted proxies tell. */
export interface Caller {
  /** The first address that is no trusted proxy; null where the peer has none. */
  readonly address: string | null;
  /** How the caller reached the outermost trusted proxy; null where none has said. */
  readonly protocol: "http" | "https" | null;
  readonly host: string | null;
  /** Whether the peer itself is a trusted proxy. */
  readonly isProxied: boolean;
}

/** What one way of forwarding says, outermost first. */
interface Told {
  readonly addresses: readonly string[];
  readonly protocols: readonly string[];
  readonly hosts: readonly string[];
}

const HOST = /^([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?$/;
/** Separators that no quotes are around. */
const ELEMENTS = /,(?=(?:[^"]*"[^"]*")*[^"]*$)/;
const PAIRS = /;(?=(?:[^"]*"[^"]*")*[^"]*$)/;

/** Reads the list of a setting. @throws InvalidError one of them is no CIDR, which it names. */
export function parseProxies(text: string): readonly string[] {
  const cidrs = text.split(/[\s,]+/).filter((each) => each !== "");
  new Proxies(cidrs);
  return cidrs;
}

/** The proxies that are trusted. */
export class Proxies {
  readonly #trusted = new BlockList();
  readonly #isNobody: boolean;
  /** Peers as they are written, and their addresses: senders come again. */
  readonly #peers = new Map<string, string | null>();

  /** @throws InvalidError one of them is no CIDR, which it names. */
  constructor(cidrs: readonly string[]) {
    this.#isNobody = cidrs.length === 0;
    if (cidrs.length > proxiesMax) {
      throw new InvalidError(`ISTHMUS_TRUST_PROXIES: at most ${proxiesMax} CIDRs`);
    }
    for (const cidr of cidrs) {
      const { address, bits } = parseCidr(cidr);
      this.#trusted.addSubnet(address, bits, familyOf(address));
    }
  }

  /** Who is behind a connection. */
  caller(headers: Pick<Headers, "get">, peer: string | null): Caller {
    const address = peer === null ? null : this.#addressOf(peer);
    if (this.#isNobody || address === null || !this.#isTrusted(address)) {
      return { address, protocol: null, host: null, isProxied: false };
    }
    const standard = forwarded(headers.get("forwarded"));
    const usual = xForwarded(headers);
    const walked = [standard, usual]
      .filter((told) => told !== null)
      .map((told) => ({ told, ...this.#walk(address, told.addresses) }));
    const [first, second] = walked;
    // A proxy writes one of them; the other may be the sender's own, and nothing tells which.
    const isDisputed = second !== undefined && second.address !== first?.address;
    if (first === undefined || isDisputed) {
      return { address, protocol: null, host: null, isProxied: true };
    }
    const protocol = walked.map(({ told, taken }) => protocolAt(told.protocols, taken));
    const host = walked.map(({ told, taken }) => hostAt(told.hosts, taken));
    return {
      address: first.address,
      protocol: protocol.find((each) => each !== null) ?? null,
      host: host.find((each) => each !== null) ?? hostAt([headers.get("host") ?? ""], 0),
      isProxied: true,
    };
  }

  #addressOf(peer: string): string | null {
    const known = this.#peers.get(peer);
    if (known !== undefined) return known;
    if (this.#peers.size >= peersKnownMax) this.#peers.clear();
    const address = plainAddress(peer);
    this.#peers.set(peer, address);
    return address;
  }

  #isTrusted(address: string): boolean {
    return this.#trusted.check(address, familyOf(address));
  }

  /** From the peer outwards, as long as who speaks is trusted. */
  #walk(peer: string, addresses: readonly string[]): { address: string; taken: number } {
    let address = peer;
    let taken = 0;
    for (const text of addresses.toReversed().slice(0, proxyHopsMax)) {
      const next = plainAddress(text);
      if (next === null || !this.#isTrusted(address)) break;
      address = next;
      taken += 1;
    }
    return { address, taken };
  }
}

function parseCidr(text: string): { readonly address: string; readonly bits: number } {
  const [address = "", bits, ...more] = text.split("/");
  const most = isIP(address) === 4 ? 32 : 128;
  const count = bits === undefined ? most : Number(bits);
  const isWhole = bits === undefined || /^\d{1,3}$/.test(bits);
  if (isIP(address) !== 0 && more.length === 0 && isWhole && count <= most) {
    return { address, bits: count };
  }
  const expected = "expected addresses or CIDRs such as 10.0.0.0/8 or fd00::/8";
  throw new InvalidError(`ISTHMUS_TRUST_PROXIES: "${text}" is no CIDR; ${expected}`);
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

/** An address without port and brackets, IPv4 as such; null for `unknown` and made-up names. */
function plainAddress(text: string): string | null {
  const bracketed = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(text)?.[1];
  const withPort = /^([\d.]+):\d{1,5}$/.exec(text)?.[1];
  const address = bracketed ?? withPort ?? text;
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1] ?? address;
  return isIP(mapped) === 0 ? null : mapped;
}

function xForwarded(headers: Pick<Headers, "get">): Told | null {
  const list = (name: string): readonly string[] => {
    const value = headers.get(name);
    return value === null ? [] : value.split(",").map((each) => each.trim());
  };
  const addresses = list("x-forwarded-for");
  const protocols = list("x-forwarded-proto");
  const hosts = list("x-forwarded-host");
  const isThere = addresses.length + protocols.length + hosts.length > 0;
  return isThere ? { addresses, protocols, hosts } : null;
}

function forwarded(value: string | null): Told | null {
  if (value === null) return null;
  const told = { addresses: [] as string[], protocols: [] as string[], hosts: [] as string[] };
  for (const element of value.split(ELEMENTS)) {
    const pairs = new Map(element.split(PAIRS).map(pairOf));
    told.addresses.push(pairs.get("for") ?? "");
    told.protocols.push(pairs.get("proto") ?? "");
    told.hosts.push(pairs.get("host") ?? "");
  }
  return told;
}

function pairOf(text: string): readonly [string, string] {
  const at = text.indexOf("=");
  const value = text.slice(at + 1).trim();
  const isQuoted = value.length > 1 && value.startsWith('"') && value.endsWith('"');
  const plain = isQuoted ? value.slice(1, -1).replaceAll(/\\(.)/g, "$1") : value;
  return [text.slice(0, Math.max(0, at)).trim().toLowerCase(), plain];
}

/** What the outermost proxy that was reached has said; of fewer values, the first. */
function valueAt(values: readonly string[], taken: number): string {
  return values[Math.max(0, values.length - Math.max(1, taken))] ?? "";
}

function protocolAt(values: readonly string[], taken: number): Caller["protocol"] {
  const value = valueAt(values, taken).toLowerCase();
  return value === "http" || value === "https" ? value : null;
}

function hostAt(values: readonly string[], taken: number): string | null {
  const value = valueAt(values, taken);
  return HOST.test(value) ? value : null;
}
