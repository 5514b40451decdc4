/**
 * What messages of a route lose on their way out because the target's protocol has no place for
 * it, counted by field. A rule that is strict sends no such message (`rules/strict.ts`).
 */
import type { Loss, MappedField } from "../bridge.ts";

/** Lost fields of one route, counted since the process started. */
export class LossTally {
  readonly #counts = new Map<MappedField, number>();

  /** Counts the losses of one message that was sent. */
  add(losses: readonly Loss[]): void {
    for (const { field } of losses) this.#counts.set(field, (this.#counts.get(field) ?? 0) + 1);
  }

  /** Field → how often; empty as long as nothing was lost. */
  get counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }
}
