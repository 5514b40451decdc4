/**
 * Takes messages from a queue or a subscription. The broker sends as many as it has credit for;
 * credit is given by the bytes that may still be held, at the size that messages turned out to
 * have. A message is accepted once its delivery is acked, in the order received, and released when
 * it is given back. A queue has no positions: where a source starts does not apply, and a
 * subscription has what came since it was made.
 */
import rhea, { type Delivery as Transfer, type EventContext, type Receiver } from "rhea";
import type { Delivery, Source, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import { Inbox } from "../inbox.ts";
import { type Entry, Settling } from "../settling.ts";
import { type Attached, attach, isPassing, type Refusal } from "./attach.ts";
import { decodeMessage, type Place } from "./codec.ts";
import type { Link, Peer } from "./link.ts";
import { isRabbitPlugin, type NodePlace, placeOf, refusedError } from "./places.ts";
import { receiveRaw } from "./raw.ts";
import { Teller } from "./teller.ts";

/** Messages that may be on their way or held, however small. The library's window is 2048. Count. */
const CREDIT_MAX = 1000;
/** What a message is taken to have before any has come. Bytes. */
const SIZE_FIRST_BYTES = 16 * 1024;
/** How much one smaller message counts in the size that is expected; a larger one counts at once. */
const AVERAGE_SHARE = 0.05;
/** Credit is renewed when so much of it is missing: one frame then serves many messages. */
const RENEW_SHARE = 0.25;
const DURABLE_STATE = 2;

/** What a source takes from, and how. */
export interface Reading {
  readonly place: NodePlace;
  /** The subscription's name; null for a queue, and for one that ends with its connection. */
  readonly subscription: string | null;
  readonly shared: boolean;
  readonly selector: string | null;
}

interface Arrival {
  readonly bytes: Uint8Array;
  readonly transfer: Transfer;
}

/** The reading end of one place. */
export class Amqp1Source implements Source {
  readonly #link: Link;
  readonly #place: Place;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #keeps: boolean;
  readonly #inbox: Inbox<Arrival>;
  readonly #settling = new Settling<Arrival>();
  readonly #teller = new Teller();
  #attached: Attached<Receiver> | null = null;
  #expectedBytes = SIZE_FIRST_BYTES;
  /** Messages that the broker may still send. */
  #credit = 0;
  #disposing: Promise<void> | null = null;

  private constructor(parts: {
    link: Link;
    bridge: string;
    reading: Reading;
    clock: Clock;
    options: SourceOptions;
  }) {
    const { link, reading, options } = parts;
    this.#link = link;
    this.#place = { bridge: parts.bridge, address: reading.place.name };
    this.#clock = parts.clock;
    this.#bytesMax = options.unsettledBytesMax;
    this.#keeps = reading.subscription !== null;
    this.#inbox = new Inbox({ bytesOf, unsettledBytesMax: this.#bytesMax });
    link.ended.addEventListener("abort", () => this.#inbox.fail(link.disconnected()), {
      once: true,
    });
  }

  /** @throws InvalidError the place is missing or refused. @throws DisconnectedError */
  static async open(parts: {
    link: Link;
    bridge: string;
    fields: Readonly<Record<string, unknown>>;
    options: SourceOptions;
    clock: Clock;
  }): Promise<Amqp1Source> {
    const { link, fields, options } = parts;
    const reading = readingOf(fields, link, options.name);
    const source = new Amqp1Source({ ...parts, reading });
    const attached = await attach(
      link,
      (session) => {
        receiveRaw(session);
        const receiver = session.open_receiver(receiverOptions(reading, options));
        receiver.on("message", (context: EventContext) => source.#arrived(context));
        return receiver;
      },
      (refusal) => source.#closed(refusal),
    );
    if ("condition" in attached) throw refusedError(reading.place, attached);
    source.#attached = attached;
    const problem = unmet(reading, attached.end, link.peer);
    if (problem !== null) {
      await attached.close();
      throw new InvalidError(problem);
    }
    source.#renew();
    return source;
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const taken = await this.#inbox.take(signal);
    if (taken === null) return null;
    const entry = this.#settling.add(taken.items, taken.bytes);
    const nowMs = this.#clock.nowMs();
    const decoded = taken.items.map(({ bytes }) => decodeMessage(bytes, this.#place, nowMs));
    return {
      messages: decoded.map(({ message }) => message),
      ids: decoded.map(({ id }) => id),
      ack: async () => this.#settle(entry, "acked"),
      nack: async () => this.#settle(entry, "nacked"),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async #dispose(): Promise<void> {
    this.#inbox.fail(new DisconnectedError("the source was closed"));
    if (!this.#link.isLost) await this.#teller.flushed();
    await this.#attached?.close(this.#keeps);
  }

  #settle(entry: Entry<Arrival>, state: "acked" | "nacked"): void {
    const { failure } = this.#inbox;
    if (failure !== null) throw failure;
    const acked = this.#settling.settle(entry, state);
    if (state === "nacked") this.#tell(entry, "released");
    for (const one of acked) this.#tell(one, "accepted");
    this.#renew();
  }

  #tell(entry: Entry<Arrival>, told: "accepted" | "released"): void {
    this.#teller.tell(
      entry.items.map(({ transfer }) => transfer),
      told,
    );
    this.#inbox.settled(entry);
  }

  #arrived({ message, delivery }: EventContext): void {
    const bytes: unknown = message;
    if (delivery === undefined || !(bytes instanceof Uint8Array)) return;
    const size = bytes.byteLength;
    const smaller = this.#expectedBytes + (size - this.#expectedBytes) * AVERAGE_SHARE;
    this.#expectedBytes = Math.max(size, smaller);
    this.#credit -= 1;
    this.#inbox.push({ bytes, transfer: delivery });
    this.#renew();
  }

  /** Gives credit for what may still be held, when enough of it is missing. */
  #renew(): void {
    if (this.#inbox.failure !== null || this.#attached === null) return;
    const { heldBytes, heldCount } = this.#inbox;
    const fits = Math.floor((this.#bytesMax - heldBytes) / Math.max(1, this.#expectedBytes));
    // One message larger than the bound is taken when nothing else is held.
    const least = heldCount === 0 ? 1 : 0;
    const wanted = Math.max(least, Math.min(CREDIT_MAX - heldCount, fits));
    const missing = wanted - this.#credit;
    if (missing < 1 || missing < wanted * RENEW_SHARE) return;
    this.#credit += missing;
    this.#attached.end.add_credit(missing);
  }

  #closed(refusal: Refusal): void {
    const by = isPassing(refusal) ? "the broker closed the link" : "the broker ended it";
    this.#inbox.fail(
      new DisconnectedError(`"${this.#place.address}" can't be read on: ${by}: ${refusal.text}`),
    );
  }
}

function bytesOf({ bytes }: Arrival): number {
  return bytes.byteLength;
}

function readingOf(fields: Readonly<Record<string, unknown>>, link: Link, name: string): Reading {
  const place = placeOf(fields, link.peer);
  if (place === null) throw new InvalidError("the address has no name");
  const { durable, shared, selector } = fields;
  const named = typeof durable === "string" ? durable : name;
  return {
    place,
    subscription: place.kind === "topic" && durable !== false ? named : null,
    shared: shared === true,
    selector: typeof selector === "string" ? selector : null,
  };
}

function receiverOptions(reading: Reading, options: SourceOptions): object {
  const { place, subscription, shared, selector } = reading;
  const capabilities = [...(place.capabilities ?? []), ...(shared ? ["shared"] : [])];
  return {
    // A shared subscription has several links, told apart by what stands behind the bar.
    name: linkName(reading, options.name),
    autoaccept: false,
    credit_window: 0,
    source: {
      address: place.address,
      ...(capabilities.length === 0 ? {} : { capabilities }),
      ...(subscription === null ? {} : { durable: DURABLE_STATE, expiry_policy: "never" }),
      ...(place.kind === "topic" ? { distribution_mode: "copy" } : {}),
      ...(selector === null ? {} : { filter: rhea.filter.selector(selector) }),
    },
  };
}

function linkName({ subscription, shared }: Reading, source: string): string {
  const unique = crypto.randomUUID();
  if (subscription === null) return shared ? `${source}|${unique}` : `${source}-${unique}`;
  return shared ? `${subscription}|${unique}` : subscription;
}

/** What was asked for and the broker did not take up, in words; it says so in its own attach. */
function unmet(
  { subscription, selector, shared, place }: Reading,
  receiver: Receiver,
  peer: Peer,
): string | null {
  const { durable, filter } = (receiver.source ?? {}) as { durable?: unknown; filter?: unknown };
  // RabbitMQ's plugin says yes to all: it makes a new queue for each reader, and filters nothing.
  const isTrue = !isRabbitPlugin(peer);
  const isKept = isTrue && Number(durable ?? 0) !== 0;
  if (subscription !== null && !isKept) {
    return (
      `the broker does not keep a subscription of "${place.name}"; give durable: false to lose ` +
      "what comes meanwhile, or read from a queue"
    );
  }
  if (shared && !peer.sharesSubscriptions) return "the broker does not share subscriptions";
  const isFiltered =
    isTrue && typeof filter === "object" && filter !== null && Object.keys(filter).length > 0;
  if (selector !== null && !isFiltered) return "the broker does not know selectors";
  return null;
}
