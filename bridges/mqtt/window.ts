/**
 * The publishes of one connection that are under way. A broker says how many it takes unacked and
 * cuts the connection of who sends more; the window holds to that, across all sinks of the
 * connection.
 */
import type { IClientPublishOptions } from "mqtt";
import type { Outcome } from "../../src/bridge.ts";
import { errorText } from "../../src/errors.ts";
import { Notice } from "../notice.ts";
import { type Link, reasonCodeOf } from "./link.ts";

/** Publishes under way at once, where the broker takes so many. Count. */
const IN_FLIGHT_MAX = 512;
/** Bodies under way at once; a larger message goes alone. Bytes. */
const IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024;
/** When a message is tried again that a broker over its quota did not take. Milliseconds. */
const QUOTA_RETRY_MS = 1000;

const QUOTA_EXCEEDED = 0x97;
const TOPIC_INVALID = 0x90;
const FORMAT_INVALID = 0x99;
/** Codes from here on are failures. */
const FAILURE_MIN = 0x80;

/** One publish, checked and encoded. */
export interface Publish {
  readonly topic: string;
  readonly payload: Buffer;
  readonly options: IClientPublishOptions;
}

/** The publishes under way of one connection. */
export class PublishWindow {
  readonly #link: Link;
  readonly #countMax: number;
  readonly #notice = new Notice();
  readonly #pending = new Set<(outcome: Outcome) => void>();
  #bytes = 0;

  constructor(link: Link) {
    this.#link = link;
    this.#countMax = Math.min(IN_FLIGHT_MAX, link.limits.receiveMaximum ?? IN_FLIGHT_MAX);
  }

  /** Whether a publish of so many bytes may go now. */
  hasRoom(bytes: number): boolean {
    if (this.#pending.size === 0) return true;
    return this.#pending.size < this.#countMax && this.#bytes + bytes <= IN_FLIGHT_BYTES_MAX;
  }

  /** Waits for room; resolves also when the connection is lost or the signal aborts. */
  async room(bytes: number, signal: AbortSignal): Promise<void> {
    while (!this.hasRoom(bytes) && !this.#link.isLost && !signal.aborted) {
      await this.#notice.wait(signal);
    }
  }

  /**
   * Publishes at once; `settle` is called exactly once, when the broker has answered or is lost.
   */
  publish({ topic, payload, options }: Publish, settle: (outcome: Outcome) => void): void {
    const done = (outcome: Outcome): void => {
      if (!this.#pending.delete(done)) return;
      this.#bytes -= payload.byteLength;
      settle(outcome);
      this.#notice.notify();
    };
    this.#pending.add(done);
    this.#bytes += payload.byteLength;
    this.#link.client.publish(topic, payload, options, (error) => {
      const outcome = outcomeOf(error);
      // The library tells this before it tells that the connection ends; `lost` then settles it.
      if (outcome === null) this.#link.abandon(error);
      else done(outcome);
    });
  }

  /** The connection is gone: what was under way may have arrived. */
  lost(): void {
    for (const done of this.#pending) done({ unknown: true });
    this.#notice.notify();
  }
}

/** What the broker answered; null when it did not answer and won't. */
function outcomeOf(error: unknown): Outcome | null {
  if (error === undefined || error === null) return { sent: null };
  const code = reasonCodeOf(error);
  if (code === null) return null;
  if (code < FAILURE_MIN) return { sent: null };
  if (code === QUOTA_EXCEEDED) return { busyMs: QUOTA_RETRY_MS };
  const refused = `the broker refused it with 0x${code.toString(16)}: ${errorText(error)}`;
  const final = code === TOPIC_INVALID || code === FORMAT_INVALID;
  return final ? { refused, final } : { refused };
}
