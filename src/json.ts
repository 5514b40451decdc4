/**
 * JSON with exact whole numbers: digits outside ±2^53 become `bigint` and come out again as the
 * same digits. Depth and digits are bounded, so that no input overflows the stack or hangs the
 * loop. `__proto__` is plain data. The usual text costs one native parse and two short scans.
 */
import { InvalidError } from "./errors.ts";
import { jsonDepthMax, wholeNumberDigitsMax } from "./limits.ts";

/** So many characters make the shortest text that can pass the depth bound. */
const nestedCharsMin = 2 * (jsonDepthMax + 1);

/** Sixteen digits in a row: only such a text can hold a number outside ±2^53. */
const LONG_DIGITS = /\d{16}/;
const WHOLE_NUMBER = /^-?\d+$/;
const REPLACEMENT = "\uFFFD";

const strictDecoder = new TextDecoder("utf-8", { fatal: true });

/** What `JSON.rawJSON` and the reviver's third argument are: not yet in the library's types. */
interface ExactJson {
  rawJSON(text: string): object;
  parse(
    text: string,
    reviver: (name: string, value: unknown, context: { readonly source?: string }) => unknown,
  ): unknown;
}
const exactJson = JSON as unknown as ExactJson;

/**
 * Parses a JSON text. Of equal keys the last one wins. Whole numbers outside ±2^53 are `bigint`.
 * @throws InvalidError it isn't JSON, or it passes a bound: the sender must correct it.
 */
export function parseJson(text: string): unknown {
  if (text.length >= nestedCharsMin) refuseDeep(text);
  try {
    return LONG_DIGITS.test(text) ? exactJson.parse(text, reviveNumber) : JSON.parse(text);
  } catch (cause) {
    if (cause instanceof InvalidError) throw cause;
    throw notJson(cause instanceof Error ? cause.message.replace("JSON Parse error: ", "") : "");
  }
}

/**
 * The body of a message as JSON; `undefined` when it isn't JSON (or there is none), which
 * includes bytes that are not UTF-8. `text` is the body decoded with replacement characters.
 */
export function parseBody(body: Uint8Array | null, text: string | null): unknown {
  if (body === null || text === null) return undefined;
  try {
    // A replacement character may be the sender's own; only then the bytes are looked at again.
    if (text.includes(REPLACEMENT)) strictDecoder.decode(body);
    return parseJson(text);
  } catch {
    return undefined;
  }
}

/**
 * Compact JSON; a `bigint` is written as its digits. The value is JSON data: lists, plain maps,
 * text, finite numbers, booleans, null. @throws InvalidError a number is not finite.
 */
export function stringifyJson(value: unknown): string {
  const text = nativeText(value);
  if (text === undefined) throw notJson("the value has no JSON form");
  // JSON.stringify writes NaN and infinities as null: look closer only when there is one.
  if (text.includes("null")) refuseNotFinite(value);
  return text;
}

/** JSON with sorted keys: equal data has equal text. For comparing and hashing. */
export function stableText(value: unknown): string {
  return stringifyJson(sorted(value, 0));
}

function notJson(reason: string): InvalidError {
  const detail = reason === "" ? "not JSON" : `not JSON: ${reason}`;
  return new InvalidError(detail, [{ pointer: "", detail }]);
}

function reviveNumber(_name: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context.source;
  if (source === undefined || !WHOLE_NUMBER.test(source)) return value;
  if (source.length > wholeNumberDigitsMax) {
    throw notJson(`a number has more than ${wholeNumberDigitsMax} digits`);
  }
  return BigInt(source);
}

function refuseDeep(text: string): void {
  if (!hasMoreOpeners(text, jsonDepthMax)) return;
  let depth = 0;
  let quoted = false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (quoted) {
      if (code === 0x5c) index++;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x5b || code === 0x7b) {
      depth++;
      if (depth > jsonDepthMax) throw notJson(`nested deeper than ${jsonDepthMax} levels`);
    } else if (code === 0x5d || code === 0x7d) depth--;
  }
}

/** Whether the text has more `[` and `{` than `count`: found by native search, for most texts. */
function hasMoreOpeners(text: string, count: number): boolean {
  let found = 0;
  for (const opener of ["{", "["]) {
    let index = text.indexOf(opener);
    while (index >= 0) {
      found++;
      if (found > count) return true;
      index = text.indexOf(opener, index + 1);
    }
  }
  return false;
}

function nativeText(value: unknown): string | undefined {
  try {
    return JSON.stringify(value) as string | undefined;
  } catch (cause) {
    // A bigint is the usual TypeError; any other one is thrown again by the second attempt.
    if (!(cause instanceof TypeError)) throw cause;
    return JSON.stringify(value, writeExact) as string | undefined;
  }
}

function writeExact(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? exactJson.rawJSON(value.toString()) : value;
}

function refuseNotFinite(value: unknown): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw notJson(`${value} is not a JSON number`);
  }
  if (typeof value !== "object" || value === null) return;
  for (const member of Object.values(value)) refuseNotFinite(member);
}

function sorted(value: unknown, depth: number): unknown {
  if (depth > jsonDepthMax) throw notJson(`nested deeper than ${jsonDepthMax} levels`);
  if (Array.isArray(value)) return value.map((member) => sorted(member, depth + 1));
  if (typeof value !== "object" || value === null) return value;
  const result: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const name of Object.keys(value).sort()) {
    result[name] = sorted((value as Record<string, unknown>)[name], depth + 1);
  }
  return result;
}
