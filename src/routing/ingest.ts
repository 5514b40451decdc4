/**
 * The loop of the way in: source → log → ack. A delivery is acked only after the append of all its
 * messages is on disk; many deliveries may be on their way to the disk at once, those of a source
 * partition in their order (in-order.ts). One that has a place in its source is appended once.
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
import type { States } from "../log/log.ts";
import type { SourceKey, Stream } from "../log/stream.ts";
import { type Message, textHeader } from "../message.ts";
import { DEAD_LETTER_HEADERS } from "./deadletter.ts";
import { InOrder, type Turn } from "./in-order.ts";
import { sourceKey } from "./source-key.ts";

/** What happens to a message between the source and the stream. */
export interface Intake {
  readonly name: string;
  /** What it reads, as text: the same places of another one are other messages. */
  readonly identity: string;
  readonly stream: Stream;
  /** Where the source keeps what its broker does not keep for it; absent: nowhere. */
  readonly states?: States;
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
  const orders = new Map<number | null, InOrder>();
  const lost = new AbortController();
  const either = AbortSignal.any([signal, lost.signal]);
  let failure: unknown = null;
  const lose = (error: unknown): void => {
    failure ??= error;
    lost.abort();
  };
  try {
    for (;;) {
      const delivery = await source.receive(either);
      if (delivery === null) break;
      const order = orderOf(delivery, orders, intake.stream);
      const place = { order, turn: order.enter(), signal: either, lose };
      const settled = settle(delivery, intake, place)
        .catch(lose)
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

/** The order of the delivery's partition; of sources without partitions there is one. */
function orderOf(
  { messages }: Delivery,
  orders: Map<number | null, InOrder>,
  stream: Stream,
): InOrder {
  const partition = messages[0]?.origin?.partition ?? null;
  const known = orders.get(partition) ?? new InOrder(() => stream.failures);
  orders.set(partition, known);
  return known;
}

interface Place {
  readonly order: InOrder;
  readonly turn: Turn;
  readonly signal: AbortSignal;
  /** Gives the source up, at once: nothing that comes later is appended. */
  readonly lose: (error: unknown) => void;
}

/** Appends all of a delivery, waits for the disk, acks. */
async function settle(delivery: Delivery, intake: Intake, place: Place): Promise<void> {
  try {
    if (!(await keep(delivery, intake, place))) return;
  } catch (error) {
    place.lose(error);
    return;
  } finally {
    place.order.leave(place.turn);
  }
  await delivery.ack();
  intake.onTaken(delivery.messages.length);
}

/** Appends in order until all of it is on disk; false when aborted before. */
async function keep(
  delivery: Delivery,
  intake: Intake,
  { order, turn, signal }: Place,
): Promise<boolean> {
  const { clock, random, warn } = intake;
  const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
  for (let failures = 1; !signal.aborted; failures++) {
    try {
      return await order.append(turn, () => append(delivery, intake), signal);
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
  return false;
}

interface Prepared {
  readonly message: Message;
  readonly dedupeKey: string | null;
  readonly sourceKey: SourceKey | null;
}

/** Appends at once, in the caller's turn; the promise is of the disk. Throws as an append does. */
function append(delivery: Delivery, intake: Intake): Promise<void> {
  const { messages, ids, uniqueIds } = delivery;
  const prepared = messages.map((message, index) => {
    const unique = uniqueIds?.[index] ?? null;
    const id = unique ?? ids?.[index] ?? null;
    const key = sourceKey(intake.identity, message, { id, isUnique: unique !== null });
    return { ...intake.prepare(message), sourceKey: key };
  });
  try {
    return intake.stream.append(
      prepared.map(({ message }) => message),
      {
        dedupeKeys: prepared.map(({ dedupeKey }) => dedupeKey),
        sourceKeys: prepared.map((each) => each.sourceKey),
      },
    ).durable;
  } catch (error) {
    const isRefusal =
      error instanceof InvalidError || (error instanceof LimitError && !error.retryable);
    if (!isRefusal) throw error;
    // The append was refused as a whole: one by one, so that only what can't be kept is set aside.
    return appendEach(prepared, intake);
  }
}

/** What of it is appended before one has to wait is known by its source key when it comes again. */
async function appendEach(prepared: readonly Prepared[], intake: Intake): Promise<void> {
  const waits: Promise<void>[] = [];
  for (const { message, ...keys } of prepared) {
    try {
      waits.push(intake.stream.appendOne(message, keys).durable);
    } catch (error) {
      const isRefusal =
        error instanceof InvalidError || (error instanceof LimitError && !error.retryable);
      if (!isRefusal) throw error;
      intake.warn(`source ${intake.name}: a message can't be kept: ${error.message}`);
      const { sourceKey: key } = keys;
      waits.push(
        intake.dead.appendOne(remains(message, error.message), { sourceKey: key }).durable,
      );
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
