/**
 * `translation: strict`: a message that would lose something at its target is not sent. Routes and
 * previews both ask here, so that they say the same.
 */
import type { Loss } from "../bridge.ts";

/** Why a rule that is strict does not send a message; null: it loses nothing. */
export function strictRefusal(losses: readonly Loss[]): string | null {
  const [first] = losses;
  if (first === undefined) return null;
  const more = losses.length > 1 ? ` (and ${losses.length - 1} more)` : "";
  return `translation is strict: ${first.what}${more}`;
}
