/**
 * How much clients may take: sockets and subscriptions by count, what they send by messages and
 * bytes in a time; for each address, each caller and each connection. A count that is full is
 * refused and says when to come again. A rate that is passed makes a connection wait, in order, so
 * that nothing is lost or overtaken; a call over HTTP is told to come again.
 */
import type { Clock } from "../clock.ts";
import { ClientLimitError, InvalidError, LimitError } from "../errors.ts";
import {
  clientRateMax,
  countedClientsMax,
  limitedRetryMs,
  socketFrameBytesMax,
  socketsOfAddressMax,
  socketsOfCallerMax,
  socketSubscriptionsMax,
  subscriptionsOfCallerMax,
} from "../limits.ts";
import { didYouMean } from "../rules/suggest.ts";
import { parseByteCount, parseRate, type Rate, RATE_FORM } from "../rules/units.ts";

/** The limits of one address, caller or connection; a rate that is null does not apply. */
export interface ScopeLimits {
  readonly sockets: number;
  readonly subscriptions: number;
  readonly messages: Rate | null;
  readonly bytes: Rate | null;
}

/** All limits of clients. */
export interface ClientLimits {
  readonly address: ScopeLimits;
  readonly caller: ScopeLimits;
  readonly connection: ScopeLimits;
  /** One frame of a socket, bytes. */
  readonly frameBytes: number;
}

const DEFAULT: ClientLimits = {
  address: {
    sockets: socketsOfAddressMax,
    subscriptions: Number.POSITIVE_INFINITY,
    messages: null,
    bytes: null,
  },
  caller: {
    sockets: socketsOfCallerMax,
    subscriptions: subscriptionsOfCallerMax,
    messages: null,
    bytes: null,
  },
  connection: { sockets: 1, subscriptions: socketSubscriptionsMax, messages: null, bytes: null },
  frameBytes: socketFrameBytesMax,
};

const SCOPES = ["address", "caller", "connection"] as const;
const SORTS = ["sockets", "subscriptions", "messages", "bytes"] as const;
const NAMES = [
  ...SCOPES.flatMap((scope) => SORTS.map((sort) => `${scope}.${sort}`)),
  "connection.frame",
].filter((name) => name !== "connection.sockets");
const SETTING = "ISTHMUS_CLIENT_LIMITS";

/**
 * Reads the setting, such as `address.sockets=50 caller.messages=100/s caller.bytes=1MiB/s`.
 * @throws InvalidError naming the part that is wrong and what would be right.
 */
export function parseClientLimits(text: string): ClientLimits {
  let limits = DEFAULT;
  for (const part of text.split(/[\s,]+/).filter((each) => each !== "")) {
    const [name = "", value = ""] = part.split("=");
    limits = withLimit(limits, name, value);
  }
  return limits;
}

function withLimit(limits: ClientLimits, name: string, value: string): ClientLimits {
  if (!NAMES.includes(name)) {
    const near = didYouMean(name, NAMES) || `; there are ${NAMES.join(", ")}`;
    throw new InvalidError(`${SETTING}: there is no limit "${name}"${near}`);
  }
  if (name === "connection.frame") return { ...limits, frameBytes: frameBytesOf(value) };
  const [scope, sort] = name.split(".") as [(typeof SCOPES)[number], (typeof SORTS)[number]];
  const isCount = sort === "sockets" || sort === "subscriptions";
  const limit = isCount
    ? Math.min(countOf(name, value), DEFAULT[scope][sort])
    : rateOf(name, sort, value);
  return { ...limits, [scope]: { ...limits[scope], [sort]: limit } };
}

function frameBytesOf(value: string): number {
  const bytes = parseByteCount(value) ?? 0;
  if (bytes >= 1 && bytes <= socketFrameBytesMax) return bytes;
  throw refusal("connection.frame", value, "bytes, at most 17MiB");
}

function countOf(name: string, value: string): number {
  if (/^[1-9]\d{0,8}$/.test(value)) return Number(value);
  throw refusal(name, value, "a count from 1");
}

function rateOf(name: string, sort: "messages" | "bytes", value: string): Rate {
  const [amount = "", unit = ""] = value.split("/");
  const count = sort === "bytes" ? String(parseByteCount(amount) ?? 0) : amount;
  const rate = parseRate(`${count}/${unit}`, clientRateMax);
  if (rate !== null) return rate;
  throw refusal(name, value, sort === "bytes" ? "bytes in a time such as 1MiB/s" : RATE_FORM);
}

function refusal(name: string, value: string, form: string): InvalidError {
  return new InvalidError(`${SETTING}: ${name}="${value}": expected ${form}`);
}

/** What may be sent in a time: starts full, may be overdrawn by one, and fills evenly. */
class Bucket {
  readonly #rate: Rate;
  #left: number;
  #atMs: number;

  constructor(rate: Rate, nowMs: number) {
    this.#rate = rate;
    this.#left = rate.count;
    this.#atMs = nowMs;
  }

  /** How long until it is not overdrawn. Milliseconds. */
  waitMs(nowMs: number): number {
    const { count, perMs } = this.#rate;
    this.#left = Math.min(count, this.#left + ((nowMs - this.#atMs) * count) / perMs);
    this.#atMs = nowMs;
    return this.#left >= 0 ? 0 : (-this.#left * perMs) / count;
  }

  take(amount: number): void {
    this.#left -= amount;
  }

  isFull(nowMs: number): boolean {
    return this.waitMs(nowMs) === 0 && this.#left >= this.#rate.count;
  }
}

/** What one address, caller or connection has taken. */
class Meter {
  sockets = 0;
  subscriptions = 0;
  readonly limits: ScopeLimits;
  readonly #messages: Bucket | null;
  readonly #bytes: Bucket | null;

  constructor(limits: ScopeLimits, nowMs: number) {
    this.limits = limits;
    this.#messages = limits.messages === null ? null : new Bucket(limits.messages, nowMs);
    this.#bytes = limits.bytes === null ? null : new Bucket(limits.bytes, nowMs);
  }

  waitMs(nowMs: number): number {
    return Math.max(this.#messages?.waitMs(nowMs) ?? 0, this.#bytes?.waitMs(nowMs) ?? 0);
  }

  take(messages: number, bytes: number): void {
    this.#messages?.take(messages);
    this.#bytes?.take(bytes);
  }

  isIdle(nowMs: number): boolean {
    if (this.sockets + this.subscriptions > 0) return false;
    return this.#messages?.isFull(nowMs) !== false && this.#bytes?.isFull(nowMs) !== false;
  }
}

/** Meters by name; those that say nothing are forgotten. */
class Meters {
  readonly #limits: ScopeLimits;
  readonly #meters = new Map<string, Meter>();

  constructor(limits: ScopeLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#meters.size;
  }

  /** @throws LimitError more names than are counted. */
  of(name: string, nowMs: number): Meter {
    const known = this.#meters.get(name);
    if (known !== undefined) return known;
    if (this.#meters.size >= countedClientsMax) this.sweep(nowMs);
    if (this.#meters.size >= countedClientsMax) throw limited("too many clients at once");
    const meter = new Meter(this.#limits, nowMs);
    this.#meters.set(name, meter);
    return meter;
  }

  sweep(nowMs: number): void {
    for (const [name, meter] of this.#meters) {
      if (meter.isIdle(nowMs)) this.#meters.delete(name);
    }
  }
}

/** The limits of all clients of a server, and what each has taken. */
export class ClientCounts {
  readonly limits: ClientLimits;
  readonly #clock: Clock;
  readonly #addresses: Meters;
  readonly #callers: Meters;
  /** Whether any rate is set: the usual case costs nothing. */
  readonly isRated: boolean;
  /** What all connections share. */
  readonly #tools: ConnectionTools;

  constructor(limits: ClientLimits, clock: Clock) {
    this.limits = limits;
    this.#clock = clock;
    this.#addresses = new Meters(limits.address);
    this.#callers = new Meters(limits.caller);
    this.isRated = SCOPES.some((scope) => {
      return limits[scope].messages !== null || limits[scope].bytes !== null;
    });
    const caller = (subject: string): Meter => this.#callers.of(subject, clock.monotonicMs());
    this.#tools = { limits: limits.connection, isRated: this.isRated, clock, caller };
  }

  /** How many addresses and callers are counted. */
  get size(): number {
    return this.#addresses.size + this.#callers.size;
  }

  /** Counts a socket from an address; it must leave once. @throws LimitError it has too many. */
  enter(address: string | null): ConnectionCounts {
    const nowMs = this.#clock.monotonicMs();
    const meter = this.#addresses.of(address ?? "", nowMs);
    if (meter.sockets >= meter.limits.sockets) throw limited("this address has too many sockets");
    meter.sockets++;
    return new ConnectionCounts(meter, this.#tools);
  }

  /** Counts what a call brings. @throws LimitError its address or its caller is over a rate. */
  call(from: { address: string | null; subject: string }, messages: number, bytes: number): void {
    if (!this.isRated) return;
    const nowMs = this.#clock.monotonicMs();
    const address = this.#addresses.of(from.address ?? "", nowMs);
    const caller = this.#callers.of(from.subject, nowMs);
    const waitMs = Math.max(address.waitMs(nowMs), caller.waitMs(nowMs));
    if (waitMs > 0) throw limited("more than may be sent in this time", waitMs);
    address.take(messages, bytes);
    caller.take(messages, bytes);
  }

  /** Forgets who is idle. */
  sweep(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#addresses.sweep(nowMs);
    this.#callers.sweep(nowMs);
  }
}

interface ConnectionTools {
  readonly limits: ScopeLimits;
  readonly isRated: boolean;
  readonly clock: Clock;
  readonly caller: (subject: string) => Meter;
}

/** What one connection has taken, of its own limits and of those that it shares. */
export class ConnectionCounts {
  readonly #tools: ConnectionTools;
  readonly #address: Meter;
  readonly #own: Meter;
  #caller: Meter | null = null;

  constructor(address: Meter, tools: ConnectionTools) {
    this.#tools = tools;
    this.#address = address;
    this.#own = new Meter(tools.limits, tools.clock.monotonicMs());
  }

  /** The caller is known. @throws LimitError it has too many sockets. */
  identify(subject: string): void {
    if (this.#caller !== null) return;
    const meter = this.#tools.caller(subject);
    if (meter.sockets >= meter.limits.sockets) throw limited("this caller has too many sockets");
    meter.sockets++;
    this.#caller = meter;
  }

  /** @throws LimitError there are as many as may be. */
  subscribe(): void {
    const { subscriptions } = this.#own.limits;
    if (this.#own.subscriptions >= subscriptions) {
      // Waiting does not help: this connection is full of its own.
      const message = `a connection has at most ${subscriptions} subscriptions`;
      throw new LimitError("too-large", message);
    }
    const isFull = this.#meters().some((each) => each.subscriptions >= each.limits.subscriptions);
    if (isFull) throw limited("too many subscriptions are open");
    for (const meter of this.#meters()) meter.subscriptions++;
  }

  unsubscribe(): void {
    for (const meter of this.#meters()) meter.subscriptions--;
  }

  /** Counts a frame; how long the next one has to wait. Milliseconds, 0: not at all. */
  take(messages: number, bytes: number): number {
    if (!this.#tools.isRated) return 0;
    const nowMs = this.#tools.clock.monotonicMs();
    let waitMs = 0;
    for (const meter of this.#meters()) {
      meter.take(messages, bytes);
      waitMs = Math.max(waitMs, meter.waitMs(nowMs));
    }
    return waitMs;
  }

  /** The connection is gone, and all its subscriptions with it. */
  leave(): void {
    const { subscriptions } = this.#own;
    for (const meter of this.#meters()) meter.subscriptions -= subscriptions;
    this.#address.sockets--;
    if (this.#caller !== null) this.#caller.sockets--;
  }

  #meters(): readonly Meter[] {
    return this.#caller === null
      ? [this.#own, this.#address]
      : [this.#own, this.#address, this.#caller];
  }
}

function limited(message: string, retryMs: number = limitedRetryMs): ClientLimitError {
  return new ClientLimitError("rate-limited", message, Math.ceil(retryMs));
}
