/**
 * When a message may go out at the earliest: `notBefore`, a CEL expression that gives a time, and
 * `delay`, counted from the message's append. The later of both counts.
 */
import type { StoredMessage } from "../message.ts";
import type { TargetDocument } from "./document.ts";
import { compileExpression } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { parseTimeMs } from "./units.ts";

/** Gives Unix milliseconds; 0: at once. @throws EvaluationError `notBefore` gave no time. */
export type NotBefore = (message: StoredMessage) => number;

/** Compiles it. @throws InvalidError the expression is wrong. */
export function compileNotBefore({
  notBefore,
  delayMs,
}: Pick<TargetDocument, "notBefore" | "delayMs">): NotBefore {
  const delayed: NotBefore = (message) => (delayMs > 0 ? message.appendedAtMs + delayMs : 0);
  if (notBefore === null) return delayed;
  const expression = compileExpression(notBefore);
  return (message) => Math.max(timeOf(expression.evaluate(message)), delayed(message));
}

/** A timestamp, RFC 3339, or Unix milliseconds; null is at once. */
function timeOf(value: unknown): number {
  if (value === null) return 0;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  const ms = typeof value === "string" ? parseTimeMs(value, null) : null;
  if (ms !== null) return ms;
  throw new EvaluationError(
    `notBefore: expected a time, got ${JSON.stringify(value) ?? "nothing"}`,
  );
}
