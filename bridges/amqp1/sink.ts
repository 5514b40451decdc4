/**
 * Sends to a queue, a topic or an address. Overlapping sends go out in call order; each message's
 * outcome is its own. An address that each message renders anew has a link for each place, of which
 * the least recently used one goes when there are many. When the broker closes a link and several
 * messages could be the cause, as many are then sent one by one: the guilty one is refused and the
 * others pass.
 */
import type { Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { Call, orAborted, Turns } from "../call.ts";
import { isTemplate } from "../document.ts";
import { isPassing } from "./attach.ts";
import { encodeMessage } from "./codec.ts";
import type { Link } from "./link.ts";
import { Outlet } from "./outlet.ts";
import { type NodePlace, placeOf, problemOf, refusedError } from "./places.ts";

/** Links that a sink holds open at once. Count. */
const OUTLETS_MAX = 64;
/** How long a message waits for the broker to give credit before it counts as busy. Milliseconds. */
const CREDIT_WAIT_MS = 10_000;
/** When a message is tried again that the broker gave no credit for. Milliseconds. */
const BUSY_RETRY_MS = 1000;

interface Ready {
  readonly outlet: Outlet;
  readonly payload: Buffer;
}

type Prepared = Ready | { readonly outcome: Outcome };

/** The writing end of one address. */
export class Amqp1Sink implements Sink {
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #turns = new Turns();
  /** By address, the least recently used first. */
  readonly #outlets = new Map<string, Outlet>();
  /** How many messages are still sent one by one. */
  #careful = 0;

  private constructor(link: Link, clock: Clock) {
    this.#link = link;
    this.#clock = clock;
  }

  /** @throws InvalidError the place is missing or refused. @throws DisconnectedError */
  static async open(
    link: Link,
    fields: Readonly<Record<string, unknown>>,
    clock: Clock,
  ): Promise<Amqp1Sink> {
    const sink = new Amqp1Sink(link, clock);
    const place = Object.values(fields).some(isTemplateText) ? null : placeOf(fields, link.peer);
    if (place !== null) {
      const outlet = await Outlet.open(link, place);
      if ("condition" in outlet) throw refusedError(place, outlet);
      sink.#outlets.set(place.address, outlet);
    }
    return sink;
  }

  async send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const call = new Call(outgoing.length);
    const endTurn = await this.#turns.take(signal);
    if (endTurn === null) return call.outcomes();
    try {
      await this.#sendAll(outgoing, call, signal);
    } finally {
      endTurn();
    }
    await call.allSettled(signal);
    if (this.#link.isLost) throw this.#link.disconnected();
    return call.outcomes();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const outlets = [...this.#outlets.values()];
    this.#outlets.clear();
    await Promise.all(outlets.map((outlet) => outlet.close()));
  }

  async #sendAll(outgoing: readonly Outgoing[], call: Call, signal: AbortSignal): Promise<void> {
    const dry = new Set<Outlet>();
    for (const [index, one] of outgoing.entries()) {
      const known = this.#prepare(one);
      const prepared = known instanceof Promise ? await orAborted(known, signal) : known;
      if (prepared === null || signal.aborted || this.#link.isLost) {
        return call.settleRest(index, { unknown: true });
      }
      if ("outcome" in prepared) {
        call.settle(index, prepared.outcome);
        continue;
      }
      const { outlet } = prepared;
      if (!outlet.hasRoom && !dry.has(outlet)) await this.#room(outlet, dry, signal);
      if (dry.has(outlet)) {
        call.settle(index, { busyMs: BUSY_RETRY_MS, reason: "the broker gives no credit" });
      } else if (signal.aborted || !outlet.isOpen) {
        // What was sent before the link closed is unknown, so what follows it waits too.
        return call.settleRest(index, { unknown: true });
      } else {
        await this.#sendOne(prepared, (outcome) => call.settle(index, outcome), signal);
      }
    }
  }

  /** Waits for credit; an outlet that gets none is dry for the rest of the call. */
  async #room(outlet: Outlet, dry: Set<Outlet>, signal: AbortSignal): Promise<void> {
    const waiting = new AbortController();
    const either = AbortSignal.any([signal, waiting.signal]);
    const late = this.#clock.sleep(CREDIT_WAIT_MS, either).then(() => waiting.abort());
    await outlet.room(either);
    waiting.abort();
    await late;
    if (!outlet.hasRoom && outlet.isOpen && !signal.aborted) dry.add(outlet);
  }

  /** Sends; waits for the outcome only while messages are sent one by one. */
  async #sendOne(
    { outlet, payload }: Ready,
    settle: (outcome: Outcome) => void,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.#careful === 0) return outlet.send(payload, settle);
    const single = new Call(1);
    outlet.send(payload, (outcome) => {
      settle(outcome);
      single.settle(0, outcome);
    });
    await single.allSettled(signal);
    this.#careful -= 1;
  }

  #prepare(outgoing: Outgoing): Prepared | Promise<Prepared> {
    const place = placeOf(outgoing.fields, this.#link.peer);
    if (place === null) {
      return { outcome: { refused: "the address did not come to a name", final: true } };
    }
    const outlet = this.#outlets.get(place.address);
    if (outlet?.isOpen !== true) return this.#opened(place, outgoing);
    // Behind all others: the one before all others is the next to go.
    this.#outlets.delete(place.address);
    this.#outlets.set(place.address, outlet);
    return this.#encoded(outlet, outgoing);
  }

  async #opened(place: NodePlace, outgoing: Outgoing): Promise<Prepared> {
    const before = this.#outlets.get(place.address);
    if (before !== undefined) {
      this.#outlets.delete(place.address);
      if (before.abandoned > 1) this.#careful += before.abandoned;
    }
    await this.#makeRoom();
    const outlet = await this.#open(place);
    if ("outcome" in outlet) return outlet;
    this.#outlets.set(place.address, outlet);
    return this.#encoded(outlet, outgoing);
  }

  async #open(place: NodePlace): Promise<Outlet | { readonly outcome: Outcome }> {
    const outlet = await Outlet.open(this.#link, place);
    if (!("condition" in outlet)) return outlet;
    const problem = problemOf(place, outlet);
    return {
      outcome: isPassing(outlet)
        ? { busyMs: BUSY_RETRY_MS, reason: problem }
        : { refused: problem },
    };
  }

  /** Lets go of the least recently used link that has nothing under way. */
  async #makeRoom(): Promise<void> {
    if (this.#outlets.size < OUTLETS_MAX) return;
    for (const [address, outlet] of this.#outlets) {
      if (!outlet.isIdle) continue;
      this.#outlets.delete(address);
      return await outlet.close();
    }
  }

  #encoded(outlet: Outlet, { message }: Outgoing): Prepared {
    const { place } = outlet;
    const takesUserId = !this.#link.peer.isRabbitMq;
    const target = { address: place.address, kind: place.kind, takesUserId };
    const encoded = encodeMessage(message, target, this.#clock.nowMs());
    if ("refused" in encoded) return { outcome: { refused: encoded.refused, final: true } };
    const { payload } = encoded;
    if (payload.byteLength <= outlet.messageBytesMax) return { outlet, payload };
    const refused = `the message takes ${payload.byteLength} bytes, the broker takes ${outlet.messageBytesMax}`;
    return { outcome: { refused, final: true } };
  }
}

function isTemplateText(value: unknown): boolean {
  return typeof value === "string" && isTemplate(value);
}
