/**
 * The building blocks of definition schemas: each says in one sentence what it expected. The
 * shapes of whole documents are with their parsers.
 */
import { z } from "zod";
import { expected, oneOf } from "./problems.ts";
import { didYouMean } from "./suggest.ts";
import {
  BYTES_FORM,
  DURATION_FORM,
  isName,
  isReadableStream,
  NAME_FORM,
  parseByteCount,
  parseDurationMs,
  parseTimeMs,
} from "./units.ts";
import type { Start } from "./document.ts";

/**
 * A map of known keys. An unknown one names the nearest known; one of `later` says that it is not
 * there yet.
 */
export function strict<Shape extends z.core.$ZodLooseShape>(
  shape: Shape,
  later: readonly string[] = [],
): z.ZodObject<Shape, z.core.$strict> {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== "unrecognized_keys") return undefined;
      return issue.keys.map((key) => unknownKey(key, known, later)).join("\n");
    },
  });
}

/** The sentence for a key that a map does not have. */
export function unknownKey(
  key: string,
  known: readonly string[],
  later: readonly string[] = [],
): string {
  if (later.includes(key)) return notAvailable(key);
  const near = didYouMean(key, known);
  return near === "" ? `unknown key; known are ${oneOf(known)}` : `unknown key${near}`;
}

/** The sentence for what the contract has and this version does not. */
export function notAvailable(what: string): string {
  return `${what} is not available yet`;
}

/** A value that a function reads; null is refused with what was expected. */
function scalar<T>(read: (value: unknown) => T | null, form: string) {
  return z.unknown().transform((value, context) => {
    const result = read(value);
    if (result !== null) return result;
    context.addIssue({ code: "custom", message: expected(form, value) });
    return z.NEVER;
  });
}

/** Milliseconds. */
export const durationMs = scalar(parseDurationMs, DURATION_FORM);

/** Milliseconds of a wait that may not be nothing. */
export const positiveDurationMs = scalar((value) => {
  const ms = parseDurationMs(value);
  return ms === 0 ? null : ms;
}, `${DURATION_FORM}, more than nothing`);

/** A number of bytes. */
export const byteCount = scalar(parseByteCount, BYTES_FORM);

/** The name of a definition. */
export const name = scalar(
  (value) => (typeof value === "string" && isName(value) ? value : null),
  NAME_FORM,
);

/** The name of a stream that is read. */
export const readableStream = scalar(
  (value) => (typeof value === "string" && isReadableStream(value) ? value : null),
  `a stream: ${NAME_FORM}`,
);

/** The text of a CEL expression; whether it compiles is checked apart. */
export const expression = scalar(
  (value) => (typeof value === "string" ? value : null),
  "a CEL expression as text (leave it out, or quote it: YAML takes an unquoted ! for a tag)",
);

/** Where to start; relative times count from `nowMs`, and need it. */
export function start(nowMs: number | null) {
  return scalar<Start>((value) => {
    if (value === "earliest" || value === "latest") return value;
    const timestampMs = typeof value === "string" ? parseTimeMs(value, nowMs) : null;
    return timestampMs === null ? null : { timestampMs };
  }, "earliest, latest, a time such as 2026-01-31T12:00:00Z, or 1h ago");
}

/** One of some words; those of `later` say that they are not there yet. */
export function word<const Word extends string>(
  words: readonly Word[],
  later: readonly string[] = [],
) {
  return z.unknown().transform((value, context): Word => {
    const found = words.find((each) => each === value);
    if (found !== undefined) return found;
    const isLater = typeof value === "string" && later.includes(value);
    const message = isLater ? notAvailable(JSON.stringify(value)) : expected(oneOf(words), value);
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  });
}
