/**
 * The functions of expressions. The common ones are here; the rest of CEL's standard functions
 * come from the library. Each pays for work that grows with its arguments.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { encodeText } from "../../message.ts";
import { Failure } from "../failure.ts";
import type { Apply, Compiling, Evaluation, Run } from "./evaluation.ts";
import { addedFunctions } from "./added-functions.ts";
import { callForm, libraryForms, libraryFunction } from "./library.ts";
import { Double, double, isWhole, numberOf, whole } from "./numbers.ts";
import { cachedPattern, compilePattern, matchesText } from "./pattern.ts";
import { isMap, isTemporal, kindOf, TypeName, temporalText, typeNames, typeOf } from "./values.ts";
import { findHeaderText, headerText } from "./variables.ts";

/** Characters that cost a step where native code reads a text once. */
const CHARS_PER_STEP = 64;
/** Characters that cost a step where the library makes new texts of it. */
const LIBRARY_CHARS_PER_STEP = 4;
/** Digits of a text that is turned into a whole number. */
const WHOLE_TEXT = /^[+-]?\d{1,1000}$/;
const DOUBLE_TEXT = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

const functions: ReadonlyMap<string, Apply> = new Map<string, Apply>([
  ["size/1", sizeOf],
  [".size/1", sizeOf],
  [".startsWith/2", onTexts("startsWith", (text, part) => text.startsWith(part))],
  [".endsWith/2", onTexts("endsWith", (text, part) => text.endsWith(part))],
  [".contains/2", onTexts("contains", (text, part) => text.includes(part))],
  [".matches/2", onTexts("matches", matchDynamic)],
  ["header/1", (evaluation, name) => dynamicHeader(evaluation, name)],
  ["raw/1", (_evaluation, value) => value],
  ["dyn/1", (_evaluation, value) => value],
  ["type/1", (_evaluation, value) => typeNames.get(typeOf(value)) ?? new TypeName(typeOf(value))],
  ["string/1", toText],
  ["int/1", toWhole],
  ["uint/1", toUnsigned],
  ["double/1", toDouble],
  ["bytes/1", toBytes],
  ...addedFunctions,
]);

/** Every name that can be called, for suggestions. */
export const functionNames: ReadonlySet<string> = new Set(
  [...functions.keys(), ...libraryForms].map((form) => form.replace(/^\.|\/\d+$/g, "")),
);

/** Compiles a call; the receiver of a method is the first argument. Null: no such function. */
export function compileCall(
  compiling: Compiling,
  name: string,
  nodes: readonly ASTNode[],
  method: boolean,
): Run | null {
  const special = compileSpecial(compiling, name, nodes, method);
  if (special !== null) return special;
  const form = callForm(name, nodes.length, method);
  const apply = functions.get(form) ?? fromLibrary(name, nodes.length, method);
  if (apply === null) return null;
  const runs = nodes.map((node) => compiling.compile(node));
  return runs.length === 1 ? applyOne(apply, runs) : applyMany(apply, runs);
}

/** Calls whose literal argument lets part of the work be done once. */
function compileSpecial(
  compiling: Compiling,
  name: string,
  nodes: readonly ASTNode[],
  method: boolean,
): Run | null {
  const [first, second] = nodes;
  if (!method && name === "header" && nodes.length === 1 && first?.op === "value") {
    return typeof first.args === "string" ? headerText(first.args) : null;
  }
  const isMatch = method && name === "matches" && nodes.length === 2;
  if (!isMatch || first === undefined || second?.op !== "value") return null;
  if (typeof second.args !== "string") return null;
  const pattern = compilePattern(second.args);
  if (pattern instanceof Failure) compiling.refuse(second, pattern.reason);
  const text = compiling.compile(first);
  return (evaluation) => {
    const value = text(evaluation);
    if (typeof value === "string") return matchesText(pattern, value, evaluation);
    return value instanceof Failure ? value : needsText("matches", value);
  };
}

function applyOne(apply: Apply, runs: readonly Run[]): Run {
  const run = runs[0] as Run;
  return (evaluation) => {
    const value = run(evaluation);
    return value instanceof Failure ? value : apply(evaluation, value);
  };
}

function applyMany(apply: Apply, runs: readonly Run[]): Run {
  return (evaluation) => {
    const values: unknown[] = [];
    for (const run of runs) {
      const value = run(evaluation);
      if (value instanceof Failure) return value;
      values.push(value);
    }
    return apply(evaluation, ...values);
  };
}

function fromLibrary(name: string, count: number, method: boolean): Apply | null {
  if (!libraryForms.has(callForm(name, count, method))) return null;
  const call = libraryFunction(name, count, method);
  return (evaluation, ...values) => {
    for (const value of values) evaluation.pay(1 + lengthOf(value) / LIBRARY_CHARS_PER_STEP);
    evaluation.made = true;
    return call(...values);
  };
}

function lengthOf(value: unknown): number {
  if (typeof value === "string" || value instanceof Uint8Array) return value.length;
  if (!Array.isArray(value)) return 0;
  let length = value.length;
  for (const member of value) if (typeof member === "string") length += member.length;
  return length;
}

function onTexts(
  name: string,
  apply: (text: string, other: string, evaluation: Evaluation) => unknown,
): Apply {
  return (evaluation, text, other) => {
    if (typeof text !== "string") return needsText(name, text);
    if (typeof other !== "string") return needsText(name, other);
    evaluation.pay(text.length / CHARS_PER_STEP);
    return apply(text, other, evaluation);
  };
}

function needsText(name: string, value: unknown): Failure {
  return new Failure(`${name} needs text, not ${kindOf(value)}`);
}

function matchDynamic(text: string, source: string, evaluation: Evaluation): unknown {
  const pattern = cachedPattern(source);
  return pattern instanceof Failure ? pattern : matchesText(pattern, text, evaluation);
}

function dynamicHeader(evaluation: Evaluation, name: unknown): unknown {
  if (typeof name !== "string") return needsText("header", name);
  return findHeaderText(evaluation.message.headers, name.toLowerCase());
}

function sizeOf(evaluation: Evaluation, value: unknown): unknown {
  if (typeof value === "string") {
    evaluation.pay(value.length / LIBRARY_CHARS_PER_STEP);
    let count = 0;
    for (const _ of value) count++;
    return count;
  }
  if (Array.isArray(value) || value instanceof Uint8Array) return value.length;
  return isMap(value) ? Object.keys(value).length : new Failure(`${kindOf(value)} has no size`);
}

function toText(_evaluation: Evaluation, value: unknown): unknown {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return String(value);
  const number = numberOf(value);
  if (number !== undefined) return String(number);
  if (typeof value === "object" && value !== null && isTemporal(typeOf(value))) {
    return temporalText(value);
  }
  if (!(value instanceof Uint8Array)) return new Failure(`string: ${kindOf(value)} is no scalar`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
  } catch {
    return new Failure("the bytes are not UTF-8 text");
  }
}

function toWhole(_evaluation: Evaluation, value: unknown): unknown {
  if (isWhole(value)) return value;
  const number = numberOf(value);
  if (number !== undefined) return whole(BigInt(Math.trunc(Number(number))));
  if (value instanceof Date) return Math.floor(value.getTime() / 1000);
  if (typeof value !== "string") return new Failure(`int: ${kindOf(value)} is not a number`);
  return WHOLE_TEXT.test(value)
    ? whole(BigInt(value.replace("+", "")))
    : new Failure(`int: ${JSON.stringify(value.slice(0, 40))} is not a whole number`);
}

function toUnsigned(evaluation: Evaluation, value: unknown): unknown {
  const result = toWhole(evaluation, value);
  return isWhole(result) && result < 0 ? new Failure("uint: the number is negative") : result;
}

function toDouble(_evaluation: Evaluation, value: unknown): unknown {
  const number = numberOf(value);
  if (number !== undefined) return value instanceof Double ? value : double(Number(number));
  if (typeof value === "string" && DOUBLE_TEXT.test(value)) return double(Number(value));
  return new Failure(`double: ${kindOf(value)} is not a number`);
}

function toBytes(evaluation: Evaluation, value: unknown): unknown {
  if (value instanceof Uint8Array) return value;
  if (typeof value !== "string") return new Failure(`bytes needs text, not ${kindOf(value)}`);
  evaluation.pay(value.length / CHARS_PER_STEP);
  return encodeText(value);
}
