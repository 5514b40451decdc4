/**
 * One sender: sends in order and tells what became of each message. Several are unconfirmed at
 * once. When the broker closes the link with a reason while one message alone is unconfirmed, that
 * one is the cause and is refused; with several nobody can say, so all of them are unknown.
 */
import type { Delivery, EventContext, Sender } from "rhea";
import type { Outcome } from "../../src/bridge.ts";
import { Notice } from "../notice.ts";
import { type Attached, attach, isPassing, type Refusal, refusalOf } from "./attach.ts";
import type { Link } from "./link.ts";
import { type NodePlace } from "./places.ts";

/** Messages that may be unconfirmed on one link; the library's buffer holds 2048. Count. */
const UNCONFIRMED_MAX = 1000;
/** When a message is tried again that the broker gave back. Milliseconds. */
const RELEASED_RETRY_MS = 1000;
/** Every message is given as its bytes; the library encodes nothing. */
const MESSAGE_FORMAT = 0;

/** Conditions of a rejected message that pass by themselves: the place is full, or too busy. */
const BUSY_CONDITIONS: ReadonlySet<string> = new Set([
  "amqp:resource-limit-exceeded",
  "amqp:internal-error",
  "amqp:resource-locked",
]);
/** Conditions that no retry of the same message can change. */
const FINAL_CONDITIONS: ReadonlySet<string> = new Set([
  "amqp:link:message-size-exceeded",
  "amqp:decode-error",
  "amqp:not-implemented",
]);

type Settle = (outcome: Outcome) => void;

/** The sending end of one link. */
export class Outlet {
  readonly place: NodePlace;
  readonly #link: Link;
  readonly #notice = new Notice();
  readonly #pending = new Map<Delivery, Settle>();
  #attached: Attached<Sender> | null = null;
  #closed = false;
  #refusal: Refusal | null = null;
  #abandoned = 0;
  /** Messages handed over since the link was opened. */
  #handed = 0;

  private constructor(link: Link, place: NodePlace) {
    this.#link = link;
    this.place = place;
    const lost = (): void => this.#close(null);
    link.ended.addEventListener("abort", lost, { once: true });
  }

  /** The outlet, or the broker's refusal of the place. @throws DisconnectedError */
  static async open(link: Link, place: NodePlace): Promise<Outlet | Refusal> {
    const { address, capabilities, dropsWhenMissing = false } = place;
    const missing = dropsWhenMissing ? await missingPlace(link, address) : null;
    if (missing !== null) return missing;
    const outlet = new Outlet(link, place);
    const attached = await attach(
      link,
      (session) => {
        const sender = session.open_sender({
          name: `isthmus-${crypto.randomUUID()}`,
          target: {
            address,
            ...(capabilities === undefined ? {} : { capabilities: [...capabilities] }),
          },
          // The library would tell of a modified message as of a released one besides.
          treat_modified_as_released: false,
        });
        outlet.#listen(sender);
        return sender;
      },
      (refusal) => outlet.#close(refusal),
    );
    if ("condition" in attached) return attached;
    outlet.#attached = attached;
    return outlet;
  }

  /** Whether the link still takes messages. */
  get isOpen(): boolean {
    return !this.#closed;
  }

  /** Whether nothing is unconfirmed. */
  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  /** How many messages a failure of the link left unknown. */
  get abandoned(): number {
    return this.#abandoned;
  }

  /** The largest message that the broker takes. Bytes. */
  get messageBytesMax(): number {
    const bound: unknown = this.#attached?.end.max_message_size;
    // 0 and none are no bound; one past 2^53 comes as bytes.
    return typeof bound === "number" && bound > 0 ? bound : Number.MAX_SAFE_INTEGER;
  }

  /** Whether a message can be sent without waiting. */
  get hasRoom(): boolean {
    if (this.#closed || this.#pending.size >= UNCONFIRMED_MAX) return false;
    // What may be sent on this link in all; the library's own count lags by what it has queued.
    const counts = this.#attached?.end as unknown as
      | { readonly delivery_count: number; readonly credit: number }
      | undefined;
    return counts !== undefined && this.#handed < counts.delivery_count + counts.credit;
  }

  /** Waits for room; resolves also when the link has closed or the signal aborts. */
  async room(signal: AbortSignal): Promise<void> {
    while (!this.hasRoom && !this.#closed && !signal.aborted) await this.#notice.wait(signal);
  }

  /** Sends at once; `settle` is called exactly once, later. */
  send(payload: Buffer, settle: Settle): void {
    const sender = this.#attached?.end;
    if (this.#closed || sender === undefined) return settle({ unknown: true });
    this.#handed += 1;
    this.#pending.set(sender.send(payload, undefined, MESSAGE_FORMAT), settle);
  }

  /** Closes the link; what is unconfirmed becomes unknown. */
  async close(): Promise<void> {
    await this.#attached?.close();
    this.#close(null);
  }

  #listen(sender: Sender): void {
    sender.on("sendable", () => this.#notice.notify());
    sender.on("accepted", (context: EventContext) => this.#settle(context, { sent: null }));
    sender.on("rejected", (context: EventContext) => {
      this.#settle(context, rejectedOutcome(errorOf(context.delivery)));
    });
    sender.on("released", (context: EventContext) => this.#settle(context, this.#released()));
    sender.on("modified", (context: EventContext) => {
      this.#settle(context, modifiedOutcome(context.delivery));
    });
    // Settled without an outcome: nothing is known.
    sender.on("settled", (context: EventContext) => this.#settle(context, { unknown: true }));
  }

  #settle({ delivery }: EventContext, outcome: Outcome): void {
    if (delivery === undefined) return;
    const settle = this.#pending.get(delivery);
    if (settle === undefined) return;
    this.#pending.delete(delivery);
    if (!delivery.remote_settled) delivery.update(true);
    settle(outcome);
    this.#notice.notify();
  }

  /** RabbitMQ gives back what no queue took; elsewhere it says that it can't take it now. */
  #released(): Outcome {
    if (this.#link.peer.isRabbitMq) return { refused: "released: no queue took the message" };
    return { busyMs: RELEASED_RETRY_MS, reason: "the broker released the message" };
  }

  #close(refusal: Refusal | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#refusal = refusal;
    this.#abandoned = this.#pending.size;
    const isCause = this.#abandoned === 1 && refusal !== null && !isPassing(refusal);
    const outcome: Outcome = isCause ? { refused: this.#refusal?.text ?? "" } : { unknown: true };
    for (const settle of this.#pending.values()) settle(outcome);
    this.#pending.clear();
    this.#notice.notify();
  }
}

/**
 * Looks for a place by a reader that takes nothing, where a writer would not be told that it is not
 * there. Null when it is, also when somebody else alone may read from it.
 */
async function missingPlace(link: Link, address: string): Promise<Refusal | null> {
  const attached = await attach(
    link,
    (session) => session.open_receiver({ source: { address }, credit_window: 0 }),
    () => {
      // It is closed at once anyway.
    },
  );
  if (!("condition" in attached)) {
    await attached.close();
    return null;
  }
  return attached.condition === "amqp:not-found" ? attached : null;
}

function errorOf(delivery: Delivery | undefined): Refusal {
  const { error } = (delivery?.remote_state ?? {}) as { error?: unknown };
  return refusalOf(error);
}

function rejectedOutcome({ condition, text }: Refusal): Outcome {
  const reason = condition === "" ? "the broker rejected the message" : text;
  if (BUSY_CONDITIONS.has(condition)) return { busyMs: RELEASED_RETRY_MS, reason };
  return FINAL_CONDITIONS.has(condition) ? { refused: reason, final: true } : { refused: reason };
}

function modifiedOutcome(delivery: Delivery | undefined): Outcome {
  const { undeliverable_here: undeliverable } = (delivery?.remote_state ?? {}) as {
    undeliverable_here?: unknown;
  };
  if (undeliverable === true) return { refused: "modified: the message is undeliverable here" };
  return { busyMs: RELEASED_RETRY_MS, reason: "the broker gave the message back as modified" };
}
