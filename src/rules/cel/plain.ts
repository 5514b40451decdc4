/**
 * Makes the values of an evaluation plain data: what leaves an expression is JSON data or bytes,
 * never one of the evaluator's wrappers.
 */
import { Buffer } from "node:buffer";
import type { Evaluation } from "./evaluation.ts";
import { Double, numberOf } from "./numbers.ts";
import { isMap, temporalText, TypeName } from "./values.ts";

/** Characters that cost a step when a result is made plain. */
const CHARS_PER_STEP = 64;

/**
 * Takes the wrappers of the evaluator off a result; what needs no change is given as it is.
 * @throws EvaluationError the evaluation has used up its steps.
 */
export function plain(value: unknown, evaluation: Evaluation): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Uint8Array) return value;
  if (!evaluation.made && (Array.isArray(value) || isMap(value))) return value;
  return plainMember(value, evaluation, false);
}

function plainMember(value: unknown, evaluation: Evaluation, nested: boolean): unknown {
  evaluation.pay(1 + (typeof value === "string" ? value.length / CHARS_PER_STEP : 0));
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((member) => plainMember(member, evaluation, true));
  if (isMap(value)) return plainMap(value, evaluation);
  if (value instanceof Double) return numberOf(value);
  if (value instanceof Uint8Array) return nested ? Buffer.from(value).toString("base64") : value;
  return value instanceof TypeName ? value.name : temporalText(value);
}

function plainMap(value: Readonly<Record<string, unknown>>, evaluation: Evaluation): unknown {
  const result = Object.create(null) as Record<string, unknown>;
  for (const name of Object.keys(value)) {
    result[name] = plainMember(value[name], evaluation, true);
  }
  return result;
}
