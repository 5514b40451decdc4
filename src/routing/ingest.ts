/**
 * The loop of the way in: source → log → ack. A delivery is acked only after the append of all its
 * messages is on disk; many deliveries may be on their way to the disk at once.
 */
import type { Delivery, Source } from "../bridge.ts";
import { backoffMs } from "../backoff.ts";
import type { Clock } from "../clock.ts";
import { DisconnectedError, errorText, InvalidError, LimitError, StorageError } from "../errors.ts";
import {
  ingestInFlight,
  reasonLengthMax,
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
} from "../limits.ts";
import type { Stream } from "../log/stream.ts";
import { type Message, textHeader } from "../message.ts";
import { DEAD_LETTER_HEADERS } from "./deadletter.ts";

/** What happens to a message between the source and the stream. */
export interface Intake {
  readonly name: string;
  readonly stream: Stream;
  /** Where messages go that the log can't hold. */
  readonly dead: Stream;
  /** Gives a message its key; the dedupe key, or null. Never throws. */
  readonly prepare: (message: Message) => {
    readonly message: Message;
    readonly dedupeKey: string | null;
  };
  readonly onTaken: (messages: number) => void;
  readonly warn: (sentence: string) => void;
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * Takes messages in until aborted or the source is lost. What was taken and not yet acked is given
 * back by the broker. @throws DisconnectedError open the source anew.
 */
export async function ingest(source: Source, intake: Intake, signal: AbortSignal): Promise<void> {
  const underWay = new Set<Promise<void>>();
  const lost = new AbortController();
  const either = AbortSignal.any([signal, lost.signal]);
  let failure: unknown = null;
  try {
    for (;;) {
      const delivery = await source.receive(either);
      if (delivery === null) break;
      const settled = settle(delivery, intake, either)
        .catch((error: unknown) => {
          failure ??= error;
          lost.abort();
        })
        .finally(() => underWay.delete(settled));
      underWay.add(settled);
      if (underWay.size >= ingestInFlight) await Promise.race(underWay);
    }
  } finally {
    // What waits for space on the disk is given back with the source.
    lost.abort();
    await Promise.allSettled(underWay);
  }
  if (failure !== null && !signal.aborted) {
    if (failure instanceof DisconnectedError) throw failure;
    throw new DisconnectedError(`the source was given up: ${errorText(failure)}`, {
      cause: failure,
    });
  }
}

/** Appends all of a delivery, waits for the disk, acks. */
async function settle(delivery: Delivery, intake: Intake, signal: AbortSignal): Promise<void> {
  const { clock, random, warn } = intake;
  const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
  for (let failures = 1; !signal.aborted; failures++) {
    try {
      await append(delivery.messages, intake);
      await delivery.ack();
      intake.onTaken(delivery.messages.length);
      return;
    } catch (error) {
      const canWait =
        (error instanceof StorageError && !error.fatal) ||
        (error instanceof LimitError && error.retryable);
      if (!canWait) throw error;
      // Unacked messages hold the source back; the broker keeps what has not come yet.
      if (failures === 1) warn(`source ${intake.name} waits: ${errorText(error)}`);
      await clock.sleep(backoffMs(failures, bounds, random), signal);
    }
  }
}

async function append(messages: readonly Message[], intake: Intake): Promise<void> {
  const prepared = messages.map(intake.prepare);
  try {
    const { durable } = intake.stream.append(
      prepared.map(({ message }) => message),
      { dedupeKeys: prepared.map(({ dedupeKey }) => dedupeKey) },
    );
    await durable;
  } catch (error) {
    const isRefusal =
      error instanceof InvalidError || (error instanceof LimitError && !error.retryable);
    if (!isRefusal) throw error;
    // The append was refused as a whole: one by one, so that only what can't be kept is set aside.
    await appendEach(prepared, intake);
  }
}

async function appendEach(
  prepared: readonly { readonly message: Message; readonly dedupeKey: string | null }[],
  intake: Intake,
): Promise<void> {
  const waits: Promise<void>[] = [];
  for (const { message, dedupeKey } of prepared) {
    try {
      waits.push(intake.stream.appendOne(message, { dedupeKey }).durable);
    } catch (error) {
      const isRefusal =
        error instanceof InvalidError || (error instanceof LimitError && !error.retryable);
      if (!isRefusal) throw error;
      intake.warn(`source ${intake.name}: a message can't be kept: ${error.message}`);
      waits.push(intake.dead.appendOne(remains(message, error.message)).durable);
    }
  }
  await Promise.all(waits);
}

/** What can be kept of a message that is over a bound: where it came from, and why. */
function remains(message: Message, reason: string): Message {
  return {
    id: message.id.slice(0, 40),
    key: null,
    properties: {},
    headers: [
      textHeader(DEAD_LETTER_HEADERS.reason, reason.slice(0, reasonLengthMax)),
      textHeader(DEAD_LETTER_HEADERS.attempts, "1"),
    ],
    body: new Uint8Array(),
    timestampMs: message.timestampMs,
    origin: message.origin,
  };
}
