/**
 * Publishes to a topic. Overlapping sends are published in call order over one connection, and the
 * broker keeps the order of a topic; each message's outcome is its own, given by its PUBACK (QoS 1)
 * or PUBCOMP (QoS 2), and with QoS 0 by the connection having taken it.
 */
import type { Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { Call, Turns } from "../call.ts";
import { encodeMessage, type Version } from "./codec.ts";
import type { Link } from "./link.ts";
import { topicProblem } from "./topic.ts";
import type { Publish, PublishWindow } from "./window.ts";

/** The largest packet of the protocol: four bytes of seven bits. Bytes. */
const PACKET_BYTES_MAX = 268_435_455;

type Prepared = Publish | { readonly refused: string };

/** The writing end of one address. */
export class MqttSink implements Sink {
  readonly #link: Link;
  readonly #window: PublishWindow;
  readonly #version: Version;
  readonly #clock: Clock;
  readonly #turns = new Turns();

  constructor(parts: { link: Link; window: PublishWindow; version: Version; clock: Clock }) {
    this.#link = parts.link;
    this.#window = parts.window;
    this.#version = parts.version;
    this.#clock = parts.clock;
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
    // The connection is the bridge's; nothing here outlives it.
  }

  async #publish(outgoing: readonly Outgoing[], call: Call, signal: AbortSignal): Promise<void> {
    for (const [index, one] of outgoing.entries()) {
      const prepared = this.#prepare(one);
      const bytes = "payload" in prepared ? prepared.payload.byteLength : 0;
      if (!this.#window.hasRoom(bytes)) await this.#window.room(bytes, signal);
      if (signal.aborted || this.#link.isLost) return call.settleRest(index, { unknown: true });
      if ("refused" in prepared) call.settle(index, { refused: prepared.refused, final: true });
      else this.#window.publish(prepared, (outcome) => call.settle(index, outcome));
    }
  }

  #prepare({ message, fields }: Outgoing): Prepared {
    const topic = topicOf(fields["topic"]);
    if (topic === null) return { refused: "the topic did not come to a text" };
    const problem = topicProblem(topic);
    if (problem !== null) return { refused: problem };
    const publication = encodeMessage(message, {
      version: this.#version,
      nowMs: this.#clock.nowMs(),
    });
    if ("refused" in publication) return publication;
    const bytesMax = this.#link.limits.maximumPacketSize ?? PACKET_BYTES_MAX;
    const bytes = publication.bytes + Buffer.byteLength(topic) + 16;
    if (bytes > bytesMax) {
      return { refused: `the packet takes ${bytes} bytes, the broker allows ${bytesMax}` };
    }
    const { payload, properties } = publication;
    const qos = fields["qos"] === 0 ? 0 : fields["qos"] === 2 ? 2 : 1;
    const options = { qos, retain: fields["retain"] === true } as const;
    return {
      topic,
      payload,
      options: properties === undefined ? options : { ...options, properties },
    };
  }
}

/** A rendered topic; a template that is one expression may have come to a number. */
function topicOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "bigint" ? String(value) : null;
}
