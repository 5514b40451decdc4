/**
 * Dead letters: messages that a route or a source gave up, kept in a stream of their own with what
 * is needed to understand and send them again: the original bytes, the reason, the rule, where the
 * message stood and how often it was tried.
 */
import type { Clock } from "../clock.ts";
import { originTextMax, reasonLengthMax } from "../limits.ts";
import { type Message, type Origin, type StoredMessage, textHeader } from "../message.ts";

/** Header names that a dead letter adds. */
export const DEAD_LETTER_HEADERS = {
  reason: "isthmus-reason",
  rule: "isthmus-rule",
  target: "isthmus-target",
  revision: "isthmus-revision",
  attempts: "isthmus-attempts",
  position: "isthmus-position",
  timestamp: "isthmus-timestamp",
  origin: "isthmus-origin",
} as const;

/** Why a route gave a message up. */
export interface DeadLetterCause {
  readonly rule: string;
  readonly target: string;
  readonly revision: number;
  readonly reason: string;
  readonly attempts: number;
}

/** The stream of a rule's or source's dead letters. */
export function deadLetterStream(name: string): string {
  return `${name}.dead`;
}

/** The dead letter of a message: its own id, key, properties, headers and body, and the cause. */
export function deadLetter(message: StoredMessage, cause: DeadLetterCause, clock: Clock): Message {
  const names = DEAD_LETTER_HEADERS;
  const position = `${message.stream}/${message.partition}/${message.offset}`;
  const { origin } = message;
  const cameFrom = origin === null ? "" : originText(origin);
  return {
    id: message.id,
    key: message.key,
    properties: message.properties,
    headers: [
      ...message.headers,
      textHeader(names.reason, cause.reason.slice(0, reasonLengthMax)),
      textHeader(names.rule, cause.rule),
      textHeader(names.target, cause.target),
      textHeader(names.revision, String(cause.revision)),
      textHeader(names.attempts, String(cause.attempts)),
      textHeader(names.position, position),
      textHeader(names.timestamp, String(message.timestampMs)),
      ...(cameFrom === "" ? [] : [textHeader(names.origin, cameFrom)]),
    ],
    body: message.body,
    timestampMs: clock.nowMs(),
    origin: {
      bridge: "rule",
      address: cause.rule,
      partition: message.partition,
      offset: String(message.offset),
      hops: origin?.hops ?? [],
    },
  };
}

/** Where a message came from, so that it can be sent again as it was; without how it was signed. */
function originText(origin: Origin): string {
  const { bridge, address, partition, offset, hops, params, principal, redelivered } = origin;
  const kept = { bridge, address, partition, offset, hops, params, principal, redelivered };
  const text = JSON.stringify(kept);
  return text.length <= originTextMax ? text : "";
}
