/**
 * Publishes to an exchange or a queue, with publisher confirms. Overlapping sends are published in
 * call order; each message's outcome is its own. A missing exchange is found out before anything is
 * published to it, on a channel of its own, since a publish to it would close ours. When the broker
 * closes the channel all the same and several messages could be the cause, as many messages are
 * then sent one by one: the guilty one is refused and the others pass. Messages that name lanes
 * keep the order of each lane whatever fails (lanes.ts).
 */
import type { Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { InvalidError } from "../../src/errors.ts";
import { Call, orAborted, Turns } from "../call.ts";
import { isTemplate } from "../document.ts";
import { encodeMessage, type Publication, shortStringBytesMax } from "./codec.ts";
import { Lanes } from "./lanes.ts";
import type { Link } from "./link.ts";
import { type PlaceKind, Places } from "./places.ts";
import { Publisher, type Target } from "./publisher.ts";

/** When a message is tried again that a broker out of memory or disk did not take. Milliseconds. */
const BLOCKED_RETRY_MS = 1000;

interface Ready {
  readonly target: Target;
  readonly publication: Publication;
}

type Prepared = Ready | { readonly outcome: Outcome };

/** The writing end of one address. */
export class AmqpSink implements Sink {
  readonly #link: Link;
  readonly #places: Places;
  readonly #clock: Clock;
  readonly #turns = new Turns();
  #publisher: Publisher;
  /** How many messages are still sent one by one. */
  #careful = 0;
  #reopening: Promise<void> | null = null;

  private constructor(parts: { link: Link; places: Places; clock: Clock; publisher: Publisher }) {
    this.#link = parts.link;
    this.#places = parts.places;
    this.#clock = parts.clock;
    this.#publisher = parts.publisher;
  }

  /**
   * @throws InvalidError the place is missing, or can't be made as asked. @throws DisconnectedError
   */
  static async open(
    link: Link,
    fields: Readonly<Record<string, unknown>>,
    clock: Clock,
  ): Promise<AmqpSink> {
    const places = new Places(link, fields["create"]);
    const kind: PlaceKind = fields["queue"] === undefined ? "exchange" : "queue";
    const name = fields[kind];
    if (typeof name === "string" && !isTemplate(name)) {
      const problem = await places.check(kind, name);
      if (problem !== null) throw new InvalidError(problem);
    }
    return new AmqpSink({ link, places, clock, publisher: await Publisher.open(link) });
  }

  async send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const call = new Call(outgoing.length);
    const endTurn = await this.#turns.take(signal);
    if (endTurn === null) return call.outcomes();
    try {
      await this.#publish(outgoing, call, signal);
    } finally {
      endTurn();
    }
    await call.allSettled(signal);
    if (this.#link.isLost) throw this.#link.disconnected();
    return call.outcomes();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#publisher.close();
  }

  async #publish(outgoing: readonly Outgoing[], call: Call, signal: AbortSignal): Promise<void> {
    if (!this.#publisher.isOpen) await orAborted(this.#reopen(), signal);
    const lanes = new Lanes(signal);
    for (const [index, one] of outgoing.entries()) {
      const known = this.#prepare(one);
      const prepared = known instanceof Promise ? await orAborted(known, signal) : known;
      if (!this.#publisher.hasRoom) await this.#publisher.room(signal);
      // What was published before the channel closed is unknown, so what follows it waits too.
      if (prepared === null || lanes.isStopped || !this.#publisher.isOpen) {
        return call.settleRest(index, { unknown: true });
      }
      const single = this.#careful === 0 ? null : new Call(1);
      lanes.offer({
        lane: one.lane,
        settle: (outcome) => {
          call.settle(index, outcome);
          single?.settle(0, outcome);
        },
        begin: (settle) => this.#begin(prepared, settle),
      });
      if (single === null) continue;
      // While messages are sent one by one.
      await single.allSettled(signal);
      this.#careful -= 1;
    }
  }

  #begin(prepared: Prepared, settle: (outcome: Outcome) => void): void {
    if ("outcome" in prepared) settle(prepared.outcome);
    else this.#publisher.publish(prepared.publication, prepared.target, settle);
  }

  /** One at a time, also when the call that began it was aborted meanwhile. */
  async #reopen(): Promise<void> {
    this.#reopening ??= this.#openAnew();
    try {
      await this.#reopening;
    } finally {
      this.#reopening = null;
    }
  }

  async #openAnew(): Promise<void> {
    const { abandoned } = this.#publisher;
    this.#places.forget();
    this.#publisher = await Publisher.open(this.#link);
    if (abandoned > 1) this.#careful += abandoned;
  }

  #prepare({ message, fields }: Outgoing): Prepared | Promise<Prepared> {
    if (this.#link.isBlocked) {
      return { outcome: { busyMs: BLOCKED_RETRY_MS, reason: this.#link.blockedText } };
    }
    const target = targetOf(fields);
    if ("refused" in target) return { outcome: { refused: target.refused, final: true } };
    const limits = { nowMs: this.#clock.nowMs(), frameBytesMax: this.#link.frameBytesMax };
    const publication = encodeMessage(message, limits);
    if ("refused" in publication) {
      return { outcome: { refused: publication.refused, final: true } };
    }
    const ready = { publication, target };
    const kind: PlaceKind = fields["queue"] === undefined ? "exchange" : "queue";
    const name = kind === "queue" ? target.routingKey : target.exchange;
    // A missing queue comes back by itself, since such messages are mandatory.
    if (kind === "queue" && !this.#places.creates) return ready;
    return this.#places.isKnown(kind, name) ? ready : this.#checked(kind, name, ready);
  }

  async #checked(kind: PlaceKind, name: string, ready: Ready): Promise<Prepared> {
    const problem = await this.#places.check(kind, name);
    return problem === null ? ready : { outcome: { refused: problem } };
  }
}

/** Where a message goes by its rendered address, or why it can't. */
function targetOf(fields: Outgoing["fields"]): Target | { readonly refused: string } {
  const toQueue = fields["queue"] !== undefined;
  const exchange = toQueue ? "" : wordOf(fields["exchange"]);
  const routingKey = wordOf(toQueue ? fields["queue"] : (fields["routingKey"] ?? ""));
  if (exchange === null) return { refused: "the exchange did not come to a text" };
  if (routingKey === null) {
    return { refused: `the ${toQueue ? "queue" : "routing key"} did not come to a text` };
  }
  if (toQueue && routingKey === "") return { refused: "the queue's name came to an empty text" };
  for (const [name, text] of [
    ["exchange", exchange] as const,
    ["routing key", routingKey] as const,
  ]) {
    if (Buffer.byteLength(text) <= shortStringBytesMax) continue;
    return { refused: `the ${name} is longer than ${shortStringBytesMax} bytes` };
  }
  return { exchange, routingKey, mandatory: toQueue || fields["mandatory"] !== false };
}

function wordOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  const plain =
    typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
  return plain ? String(value) : null;
}
