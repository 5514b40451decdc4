/**
 * One message on its way through a route, and the lane that it belongs to: messages of one lane
 * keep their order, lanes do not wait for each other.
 */
import type { Outcome, Outgoing } from "../bridge.ts";
import type { Offset } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { RuleDocument } from "../rules/document.ts";
import type { Hold } from "./lanes.ts";
import type { RunningRevision } from "./route-parts.ts";

/** One message on its way. */
export interface Work {
  readonly message: StoredMessage;
  readonly revision: RunningRevision;
  readonly lane: string;
  /** What goes out, of several the first; null when it could not be made, and why. */
  readonly outgoing: Outgoing | null;
  /** All that goes out, where it may be several; null: `outgoing` alone. */
  readonly parts: readonly Outgoing[] | null;
  readonly broken: string | null;
  /** When it may go out at the earliest, Unix milliseconds; 0: at once. */
  readonly notBeforeMs: number;
  /** Roughly what it holds in memory. */
  readonly bytes: number;
  /** Its place among those that wait; null: it comes from its stream. */
  readonly entry: WaitEntry | null;
  /** By what an operator sends it again; null: it is sent because the route took it. */
  readonly again: string | null;
}

/** A message that waits: its place in the route's own stream, which is null until it is there. */
export interface WaitEntry {
  /** In the stream that the route reads. */
  readonly offset: Offset;
  readonly appendedAtMs: number;
  at: Offset | null;
}

/** The messages of one lane that wait, oldest first. */
export interface WaitLane {
  readonly name: string;
  readonly entries: WaitEntry[];
  /** When the first of them is due, and how it has fared. */
  hold: Hold;
  /** How many of the first are in memory, on their way out. */
  loaded: number;
  /** Whether its time has come. */
  isDue: boolean;
  /** Ends its sleep. */
  sleep: AbortController | null;
}

/** Keys up to here stand in a lane's name as they are; longer ones by their hash. Bytes. */
const plainKeyBytesMax = 64;

/**
 * The lane of a message: its key's, or one of its own when it has none or order does not matter.
 */
export function laneOf(
  order: RuleDocument["order"],
  key: Uint8Array | null,
  offset: Offset,
): string {
  if (key === null || order === "none") return `o:${offset}`;
  return laneOfKey(key);
}

/** The lane of a key. */
export function laneOfKey(key: Uint8Array): string {
  if (key.length > plainKeyBytesMax) {
    return `h:${new Bun.CryptoHasher("sha256").update(key).digest("hex")}`;
  }
  return `k:${Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1")}`;
}

/** Whether a message has stopped being worth delivering. */
export function isExpired({ outgoing }: Work, nowMs: number): boolean {
  const expiresAtMs = outgoing?.message.properties.expiresAtMs;
  return expiresAtMs !== undefined && expiresAtMs <= nowMs;
}

/** What can't be made can't be sent, however often it is tried. */
export function brokenOutcome({ broken }: Work): Outcome {
  return { refused: broken ?? "it can't be made", final: true };
}

/** All that goes out for a message. */
export function partsOf({ outgoing, parts }: Work): readonly Outgoing[] {
  return parts ?? (outgoing === null ? [] : [outgoing]);
}

/**
 * The outcomes of whole messages, from those of all their parts: one is sent when all of it is;
 * what was sent of the others is sent again, and stands in a stream already.
 */
export function wholeOutcomes(works: readonly Work[], sent: readonly Outcome[]): Outcome[] {
  let at = 0;
  return works.map((work) => {
    const own = sent.slice(at, (at += partsOf(work).length));
    return own.find((each) => !("sent" in each)) ?? own[0] ?? { unknown: true };
  });
}

/** By what a message is told from others of its target. */
export function nameOf({ message, again }: Work): string {
  return `${message.partition}/${message.offset}/${again ?? ""}`;
}
