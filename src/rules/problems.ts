/**
 * Collects what is wrong with a definition, so that its author sees all of it at once: each with
 * a JSON pointer and what was expected.
 */
import type { z } from "zod";
import { type InvalidDetail, InvalidError } from "../errors.ts";
import { escapePointer } from "./template.ts";

type Issue = z.core.$ZodIssue;

/** The problems of one document, or of one file. */
export class Problems {
  readonly #errors: InvalidDetail[] = [];
  readonly #prefix: string;

  /** `prefix` is the pointer to the document within what its author sent. */
  constructor(prefix = "") {
    this.#prefix = prefix;
  }

  get any(): boolean {
    return this.#errors.length > 0;
  }

  add(pointer: string, detail: string): void {
    this.#errors.push({ pointer: this.#prefix + pointer, detail });
  }

  /** Runs a check; what it refuses is a problem at the pointer. Null when it refused. */
  check<T>(pointer: string, run: () => T): T | null {
    try {
      return run();
    } catch (cause) {
      if (!(cause instanceof InvalidError)) throw cause;
      if (cause.errors.length === 0) this.add(pointer, cause.message);
      for (const error of cause.errors) {
        this.#errors.push({ ...error, pointer: this.#prefix + pointer + error.pointer });
      }
      return null;
    }
  }

  /** What a schema found wrong with `input`. */
  addIssues(input: unknown, issues: readonly Issue[], pointer = ""): void {
    for (const issue of issues) {
      const place = pointer + pointerOf(issue.path);
      if (issue.code === "unrecognized_keys") {
        // The schema's message has one line for each key, see `strict`.
        const lines = issue.message.split("\n");
        for (const [index, key] of issue.keys.entries()) {
          this.add(`${place}/${escapePointer(key)}`, lines[index] ?? "unknown key");
        }
      } else this.add(place, sentence(issue, valueAt(input, issue.path)));
    }
  }

  /** @throws InvalidError `definition-invalid` with all problems, when there is one. */
  throwIfAny(what: string): void {
    const [first] = this.#errors;
    if (first === undefined) return;
    const more = this.#errors.length > 1 ? ` (and ${this.#errors.length - 1} more)` : "";
    const message = `${what}: ${first.pointer || "/"}: ${first.detail}${more}`;
    throw new InvalidError(message, this.#errors, { code: "definition-invalid" });
  }
}

/** What a value is, as errors name it. */
export function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  if (typeof value === "string") return JSON.stringify(value.slice(0, 60));
  return typeof value === "number" ? `the number ${value}` : String(value as boolean);
}

const EXPECTED: Readonly<Record<string, string>> = {
  string: "text",
  boolean: "true or false",
  number: "a number",
  int: "a whole number",
  object: "a map",
  record: "a map",
  array: "a list",
  nonoptional: "a value",
};

function sentence(issue: Issue, value: unknown): string {
  if (issue.code === "invalid_type") {
    return expected(EXPECTED[issue.expected] ?? issue.expected, value);
  }
  if (issue.code === "invalid_value") return expected(oneOf(issue.values.map(String)), value);
  if (issue.code === "too_small") {
    return `expected at least ${issue.minimum}${unitOf(issue.origin)}, found ${shown(value)}`;
  }
  if (issue.code === "too_big") {
    return `expected at most ${issue.maximum}${unitOf(issue.origin)}, found ${shown(value)}`;
  }
  return issue.code === "invalid_union" ? unionSentence(issue, value) : issue.message;
}

/** Of the alternatives of a union the last one is the usual; the others are null and false. */
function unionSentence(issue: z.core.$ZodIssueInvalidUnion, value: unknown): string {
  const usual = issue.errors.at(-1)?.[0];
  return usual === undefined ? issue.message : sentence(usual, value);
}

/** The sentence for a value that is missing or something else. */
export function expected(what: string, value: unknown): string {
  return value === undefined
    ? `is missing: expected ${what}`
    : `expected ${what}, found ${shown(value)}`;
}

/** `a`, `a or b`, `a, b or c`. */
export function oneOf(words: readonly string[]): string {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} or ${last}`;
}

function unitOf(origin: string): string {
  if (origin === "array") return " entries";
  return origin === "string" ? " characters" : "";
}

function pointerOf(path: readonly PropertyKey[]): string {
  return path.map((step) => `/${escapePointer(String(step))}`).join("");
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const step of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step))
      return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}
