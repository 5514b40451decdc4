/**
 * Places in a broker, as its kind of AMQP 1.0 addresses them. Artemis and Qpid take a name and a
 * capability that says whether it is a queue or a topic; without it Artemis makes a multicast
 * address, which drops what nobody listens to. ActiveMQ Classic looks at a prefix of the name
 * instead, which it tells when connecting. RabbitMQ takes paths. The protocol has
 * no way to make a place: `create` allows what the broker makes by itself at an attach.
 */
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import { isPassing, type Refusal } from "./attach.ts";
import type { Peer } from "./link.ts";

/** The first RabbitMQ that speaks AMQP 1.0 by itself, with other addresses than its plugin. */
const RABBITMQ_NATIVE = 4;

/** A place and how it is asked for. */
export interface NodePlace {
  readonly address: string;
  /** As it stands in the document, for messages. */
  readonly name: string;
  readonly kind: "queue" | "topic" | null;
  readonly capabilities?: readonly string[];
  /** Whether the broker agrees to send there although it is missing, and drops what is sent. */
  readonly dropsWhenMissing?: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** The place of address fields; null when a rendered name is no text or empty. */
export function placeOf(fields: Fields, peer: Peer): NodePlace | null {
  const member = (["queue", "topic", "address"] as const).find(
    (each) => fields[each] !== undefined,
  );
  const name = member === undefined ? null : wordOf(fields[member]);
  if (member === undefined || name === null || name === "") return null;
  const kind = member === "address" ? null : member;
  if (kind === null) return { address: name, name, kind };
  if (peer.isRabbitMq) {
    const dropsWhenMissing = kind === "queue" && isRabbitPlugin(peer) && fields["create"] !== true;
    return { address: rabbitAddress(name, kind, fields, peer), name, kind, dropsWhenMissing };
  }
  const prefix = peer.prefixes[kind];
  const address = name.startsWith(prefix) ? name : `${prefix}${name}`;
  return { address, name, kind, capabilities: [kind] };
}

/** RabbitMQ before it spoke AMQP 1.0 by itself. */
export function isRabbitPlugin({ isRabbitMq, majorVersion }: Peer): boolean {
  return isRabbitMq && majorVersion < RABBITMQ_NATIVE;
}

function rabbitAddress(
  name: string,
  kind: "queue" | "topic",
  { create }: Fields,
  peer: Peer,
): string {
  const part = encodeURIComponent(name);
  if (!isRabbitPlugin(peer)) {
    return kind === "queue" ? `/queues/${part}` : `/exchanges/amq.topic/${part}`;
  }
  if (kind === "topic") return `/topic/${part}`;
  // The first makes the queue at the attach, the second asks for it.
  return create === true ? `/queue/${part}` : `/amq/queue/${part}`;
}

function wordOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  const plain =
    typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
  return plain ? String(value) : null;
}

/** What the broker's refusal of a place means for whoever wrote the address. */
export function problemOf({ kind, name }: NodePlace, refusal: Refusal): string {
  const what = `the ${kind ?? "address"} "${name}"`;
  if (refusal.condition === "amqp:not-found") {
    return (
      `${what} does not exist; make it at the broker, or give create: true to a broker that makes ` +
      `places by itself (${refusal.text})`
    );
  }
  if (refusal.condition === "amqp:unauthorized-access") {
    return `the login may not use ${what}: ${refusal.text}`;
  }
  return `${what} can't be used: ${refusal.text}`;
}

/** The error of an attach that was refused: an outage where it may pass by itself. */
export function refusedError(place: NodePlace, refusal: Refusal): Error {
  const problem = problemOf(place, refusal);
  return isPassing(refusal) ? new DisconnectedError(problem) : new InvalidError(problem);
}
