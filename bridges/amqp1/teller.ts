/**
 * Tells the broker what became of messages. The client library writes the outcomes of one turn of
 * the event loop as ranges, and merges the second one of a turn into the first although it is
 * another: an accepted message and a released one behind it both go out as accepted, which loses
 * the second. So a turn gets outcomes of one kind only; others wait for the next.
 */
import type { Delivery } from "rhea";
import { nextTurn } from "../../src/clock.ts";

/** What can be told of a message that was taken. */
export type Told = "accepted" | "released";

interface Group {
  readonly told: Told;
  readonly deliveries: readonly Delivery[];
}

/** The outcomes of one receiver, in the order in which they were given. */
export class Teller {
  readonly #waiting: Group[] = [];
  #telling: Promise<void> | null = null;

  /** Tells at once where this turn allows it, else in a later turn. */
  tell(deliveries: readonly Delivery[], told: Told): void {
    this.#waiting.push({ told, deliveries });
    this.#telling ??= this.#tellAll();
  }

  /** Resolves when everything given so far is on its way. */
  async flushed(): Promise<void> {
    while (this.#telling !== null) await this.#telling;
  }

  async #tellAll(): Promise<void> {
    while (this.#waiting[0] !== undefined) {
      const { told } = this.#waiting[0];
      while (this.#waiting[0]?.told === told) {
        for (const delivery of this.#waiting.shift()?.deliveries ?? []) apply(delivery, told);
      }
      await nextTurn();
    }
    this.#telling = null;
  }
}

function apply(delivery: Delivery, told: Told): void {
  if (told === "accepted") delivery.accept();
  // Not `modified`: RabbitMQ ends the session over it, and a count of failures would bring the
  // message to the broker's own dead letters while only we can't take it.
  else delivery.release();
}
