/**
 * Tickets for pages in browsers, which can't set headers on a socket or an event source: made for
 * a caller who has shown its token, good for one use within half a minute. So a ticket may stand
 * in an address, where a token never does. They are kept in memory, by their digest: a ticket is
 * good at the process that made it.
 */
import { randomBytes } from "node:crypto";
import type { Clock } from "../clock.ts";
import { LimitError } from "../errors.ts";
import { ticketMsMax, ticketsMax, ticketsOfOneMax } from "../limits.ts";
import type { Principal } from "../rules/store/roles.ts";

/** What a caller gets. */
export interface Ticket {
  readonly ticket: string;
  /** Unix milliseconds. */
  readonly expiresAt: number;
}

interface Entry {
  readonly principal: Principal;
  readonly endMs: number;
}

const TICKET_BYTES = 32;

/** All tickets of a server. */
export class Tickets {
  readonly #clock: Clock;
  /** By digest, in the order made, which is the order in which they end. */
  readonly #entries = new Map<string, Entry>();
  /** How many each subject has. */
  readonly #counts = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Makes a ticket. @throws LimitError `rate-limited`: too many have not been used. */
  issue(principal: Principal): Ticket {
    this.#sweep();
    const { subject } = principal;
    const count = this.#counts.get(subject) ?? 0;
    if (count >= ticketsOfOneMax || this.#entries.size >= ticketsMax) {
      throw new LimitError("rate-limited", "too many tickets wait to be used", ticketMsMax);
    }
    const ticket = randomBytes(TICKET_BYTES).toString("base64url");
    this.#counts.set(subject, count + 1);
    const endMs = this.#clock.monotonicMs() + ticketMsMax;
    this.#entries.set(digestOf(ticket), { principal, endMs });
    return { ticket, expiresAt: this.#clock.nowMs() + ticketMsMax };
  }

  /** The caller that it was made for; null: unknown, used or over. It can't be used again. */
  redeem(ticket: string): Principal | null {
    this.#sweep();
    const digest = digestOf(ticket);
    const entry = this.#entries.get(digest);
    if (entry === undefined) return null;
    this.#forget(digest, entry);
    return entry.principal;
  }

  #sweep(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [digest, entry] of this.#entries) {
      if (entry.endMs > nowMs) return;
      this.#forget(digest, entry);
    }
  }

  #forget(digest: string, { principal: { subject } }: Entry): void {
    this.#entries.delete(digest);
    const left = (this.#counts.get(subject) ?? 1) - 1;
    if (left === 0) this.#counts.delete(subject);
    else this.#counts.set(subject, left);
  }
}

function digestOf(ticket: string): string {
  return new Bun.CryptoHasher("sha256").update(ticket).digest("base64");
}
