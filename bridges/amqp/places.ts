/**
 * Exchanges and queues that a sink sends to: checked once each, or made where the address says so.
 * Every question goes over a channel of its own, because the broker answers "no" by closing it.
 */
import type { BrokerRefusal, Link } from "./link.ts";

/** Names remembered as there; past it all are asked for again. Count. */
const KNOWN_MAX = 10_000;

export type PlaceKind = "exchange" | "queue";

/** What `create` of an address asks for: how a missing place is made. */
export interface Creation {
  readonly type?: string | undefined;
  readonly durable?: boolean | undefined;
}

/** How a source's own queue is bound to an exchange. */
export interface Binding {
  readonly key: string;
  /** What a headers exchange compares; empty for the others. */
  readonly arguments: Readonly<Record<string, unknown>>;
}

/**
 * A binding as an address writes it: a key, or `{ headers, match }` for a headers exchange.
 */
export function bindingOf(input: unknown): Binding {
  if (typeof input !== "object" || input === null) return { key: String(input), arguments: {} };
  const { headers, match = "all" } = input as { headers?: object; match?: string };
  return { key: "", arguments: { ...headers, "x-match": match } };
}

/** The places of one sink. */
export class Places {
  readonly #link: Link;
  readonly #creation: Creation | null;
  readonly #known = new Set<string>();

  constructor(link: Link, create: unknown) {
    this.#link = link;
    this.#creation = creationOf(create);
  }

  /** Whether missing places are made. */
  get creates(): boolean {
    return this.#creation !== null;
  }

  /** Whether the place was found or made before. The default exchange is always there. */
  isKnown(kind: PlaceKind, name: string): boolean {
    return (kind === "exchange" && name === "") || this.#known.has(`${kind} ${name}`);
  }

  /** Asks for all places anew: one of them has gone. */
  forget(): void {
    this.#known.clear();
  }

  /** Finds or makes the place; null, or what is wrong in plain words. @throws DisconnectedError */
  async check(kind: PlaceKind, name: string): Promise<string | null> {
    if (this.isKnown(kind, name)) return null;
    const creation = this.#creation;
    const refusal = await this.#link.attempt(async (channel) => {
      if (creation === null) {
        await (kind === "queue" ? channel.checkQueue(name) : channel.checkExchange(name));
      } else if (kind === "queue") {
        await channel.assertQueue(name, queueOptions(creation));
      } else {
        const durable = creation.durable ?? true;
        await channel.assertExchange(name, creation.type ?? "topic", { durable });
      }
    });
    if (refusal !== null) return problemOf(kind, name, refusal);
    if (this.#known.size >= KNOWN_MAX) this.#known.clear();
    this.#known.add(`${kind} ${name}`);
    return null;
  }
}

/** The options of a queue that is made: durable, and of the type asked for. */
export function queueOptions(creation: Creation): {
  durable: boolean;
  arguments?: Record<string, string>;
} {
  const durable = creation.durable ?? true;
  if (creation.type === undefined) return { durable };
  return { durable, arguments: { "x-queue-type": creation.type } };
}

/** `create: true` or its parts; null when nothing is to be made. */
export function creationOf(create: unknown): Creation | null {
  if (create === true) return {};
  return typeof create === "object" && create !== null ? (create as Creation) : null;
}

/** What the broker's refusal means for whoever wrote the address. */
export function problemOf(kind: PlaceKind, name: string, refusal: BrokerRefusal): string {
  if (refusal.code === 404) {
    return `the ${kind} "${name}" does not exist; make it at the broker, or give create: true`;
  }
  if (refusal.code === 406) {
    return `the ${kind} "${name}" exists with other settings: ${refusal.text}`;
  }
  return `the ${kind} "${name}" can't be used: ${refusal.text}`;
}
