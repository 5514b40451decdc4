/**
 * Helper functions of expressions beyond CEL's own: JSON, encodings, digests, UUIDs, times, text.
 * All are functions of the message alone, so that a retry, a replay and a preview give what the
 * first attempt gave; each pays for work that grows with its arguments.
 */
import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import { InvalidError } from "../../errors.ts";
import { parseJson, stringifyJson } from "../../json.ts";
import { expressionTextMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import type { Apply, Evaluation } from "./evaluation.ts";
import { isWhole } from "./numbers.ts";
import { plain } from "./plain.ts";
import { timeText } from "./time-format.ts";
import { kindOf } from "./values.ts";

/** Bytes or characters that cost a step where native code passes over them once. */
const BYTES_PER_STEP = 64;
/** Characters that cost a step where new values are made of them. */
const PARSED_PER_STEP = 8;
/** What setting up a digest costs, in steps. */
const DIGEST_STEPS = 200;
/** Times that have a year of four digits, as RFC 3339 writes them. Milliseconds. */
const TIME_MIN_MS = -62_135_596_800_000;
const TIME_MAX_MS = 253_402_300_799_999;

const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;
const HEX = /^(?:[0-9A-Fa-f]{2})*$/;
const ALGORITHMS: ReadonlySet<string> = new Set(["sha1", "sha256", "sha384", "sha512"]);

const textTooLong = new Failure(`a text has more than ${expressionTextMax} characters`);

/** By form, as `functions.ts` has them: `name/count`, with a dot before it for methods. */
export const addedFunctions: ReadonlyMap<string, Apply> = new Map<string, Apply>([
  ["json/1", jsonText],
  ["jsonDecode/1", jsonValue],
  ["base64/1", (evaluation, value) => encoded(evaluation, "base64", value)],
  ["base64Decode/1", (evaluation, text) => decoded(evaluation, "base64", text)],
  ["hex/1", (evaluation, value) => encoded(evaluation, "hex", value)],
  ["hexDecode/1", (evaluation, text) => decoded(evaluation, "hex", text)],
  ["sha256/1", sha256],
  ["hmac/2", (evaluation, key, data) => hmac(evaluation, "sha256", key, data)],
  ["hmac/3", hmac],
  ["uuid/0", uuid],
  ["fromMillis/1", fromMillis],
  ["toMillis/1", toMillis],
  [".format/2", timeText],
  [".format/3", timeText],
  [".replace/3", replace],
  [".replace/4", replace],
  [".charAt/2", charAt],
  [".reverse/1", reverse],
]);

function jsonText(evaluation: Evaluation, value: unknown): unknown {
  evaluation.made = true;
  const text = stringifyJson(
    value instanceof Uint8Array ? base64Of(value) : plain(value, evaluation),
  );
  evaluation.pay(text.length / PARSED_PER_STEP);
  return text.length > expressionTextMax ? textTooLong : text;
}

function jsonValue(evaluation: Evaluation, value: unknown): unknown {
  const bytes = bytesOf("jsonDecode", value);
  if (bytes instanceof Failure) return bytes;
  evaluation.pay(bytes.length / PARSED_PER_STEP);
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    if (cause instanceof InvalidError) return new Failure(`jsonDecode: ${cause.message}`);
    if (cause instanceof TypeError) return new Failure("jsonDecode: the bytes are not UTF-8 text");
    throw cause;
  }
}

function encoded(evaluation: Evaluation, encoding: "base64" | "hex", value: unknown): unknown {
  const bytes = bytesOf(encoding, value);
  if (bytes instanceof Failure) return bytes;
  evaluation.pay(bytes.length / BYTES_PER_STEP);
  if (bytes.length > expressionTextMax / 2) return textTooLong;
  return bufferOf(bytes).toString(encoding);
}

function decoded(evaluation: Evaluation, encoding: "base64" | "hex", text: unknown): unknown {
  if (typeof text !== "string") {
    return new Failure(`${encoding}Decode needs text, not ${kindOf(text)}`);
  }
  evaluation.pay(text.length / BYTES_PER_STEP);
  const form = encoding === "hex" ? HEX : BASE64;
  if (!form.test(text)) return new Failure(`${encoding}Decode: the text is not ${encoding}`);
  return new Uint8Array(Buffer.from(text, encoding));
}

function sha256(evaluation: Evaluation, value: unknown): unknown {
  const bytes = bytesOf("sha256", value);
  if (bytes instanceof Failure) return bytes;
  evaluation.pay(DIGEST_STEPS + bytes.length / PARSED_PER_STEP);
  return createHash("sha256").update(bytes).digest("hex");
}

function hmac(evaluation: Evaluation, algorithm: unknown, key: unknown, data: unknown): unknown {
  if (typeof algorithm !== "string" || !ALGORITHMS.has(algorithm)) {
    return new Failure(`hmac: expected one of ${[...ALGORITHMS].join(", ")} as the algorithm`);
  }
  const secret = bytesOf("hmac", key);
  if (secret instanceof Failure) return secret;
  const bytes = bytesOf("hmac", data);
  if (bytes instanceof Failure) return bytes;
  evaluation.pay(DIGEST_STEPS + (secret.length + bytes.length) / PARSED_PER_STEP);
  return createHmac(algorithm, secret).update(bytes).digest("hex");
}

/** A UUID of version 8 (RFC 9562): of the message and the place in the rule, not of chance. */
function uuid(evaluation: Evaluation): unknown {
  evaluation.pay(DIGEST_STEPS);
  const bytes = createHash("sha256").update(evaluation.nextUuidSeed()).digest();
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = bytes.toString("hex", 0, 16);
  const parts = [
    [0, 8],
    [8, 12],
    [12, 16],
    [16, 20],
    [20, 32],
  ] as const;
  return parts.map(([from, to]) => hex.slice(from, to)).join("-");
}

function fromMillis(_evaluation: Evaluation, value: unknown): unknown {
  const ms = isWhole(value) ? Number(value) : Number.NaN;
  if (ms >= TIME_MIN_MS && ms <= TIME_MAX_MS) return new Date(ms);
  return new Failure(`fromMillis needs a whole number of milliseconds, not ${kindOf(value)}`);
}

function toMillis(_evaluation: Evaluation, value: unknown): unknown {
  if (value instanceof Date) return value.getTime();
  return new Failure(`toMillis needs a timestamp, not ${kindOf(value)}`);
}

/** The text, what is looked for, what takes its place, and how often at most (all when absent). */
function replace(evaluation: Evaluation, ...values: unknown[]): unknown {
  const [text, wanted, other, most = -1] = values;
  for (const part of [text, wanted, other]) {
    if (typeof part !== "string") return new Failure(`replace needs text, not ${kindOf(part)}`);
  }
  if (!isWhole(most)) return new Failure("replace needs a whole number as its limit");
  const [whole, part, by] = [text, wanted, other] as [string, string, string];
  evaluation.pay(1 + whole.length / PARSED_PER_STEP);
  const pieces = whole.split(part);
  const found = part === "" ? pieces.length + 1 : pieces.length - 1;
  const count = most < 0 ? found : Math.min(Number(most), found);
  const length = whole.length + count * (by.length - part.length);
  evaluation.pay(count + length / BYTES_PER_STEP);
  if (length > expressionTextMax) return textTooLong;
  return replaced(whole, { pieces, part, by, count, found });
}

interface Replacing {
  readonly pieces: readonly string[];
  readonly part: string;
  readonly by: string;
  readonly count: number;
  readonly found: number;
}

function replaced(whole: string, replacing: Replacing): string {
  const { pieces, part, by, count, found } = replacing;
  if (part === "") {
    // Between the characters, before the first and after the last one, as CEL has it.
    const joined = pieces.map((piece, index) => (index < count ? by : "") + piece).join("");
    return count === found ? joined + by : joined;
  }
  if (count === found) return pieces.join(by);
  if (count === 0) return whole;
  const head = pieces.slice(0, count + 1).join(by);
  return [head, ...pieces.slice(count + 1)].join(part);
}

function charAt(evaluation: Evaluation, text: unknown, index: unknown): unknown {
  if (typeof text !== "string") return new Failure(`charAt needs text, not ${kindOf(text)}`);
  if (!isWhole(index)) return new Failure("charAt needs a whole number");
  evaluation.pay(1 + text.length / PARSED_PER_STEP);
  const characters = Array.from(text);
  const at = Number(index);
  if (at < 0 || at > characters.length) {
    return new Failure(`charAt: there is no character ${at} in ${characters.length}`);
  }
  return characters[at] ?? "";
}

function reverse(evaluation: Evaluation, text: unknown): unknown {
  if (typeof text !== "string") return new Failure(`reverse needs text, not ${kindOf(text)}`);
  evaluation.pay(1 + text.length / PARSED_PER_STEP);
  return Array.from(text).toReversed().join("");
}

/** Text as its UTF-8, bytes as they are. */
function bytesOf(name: string, value: unknown): Uint8Array | Failure {
  if (value instanceof Uint8Array) return value;
  if (typeof value === "string") return Buffer.from(value, "utf8");
  return new Failure(`${name} needs text or bytes, not ${kindOf(value)}`);
}

function base64Of(bytes: Uint8Array): string {
  return bufferOf(bytes).toString("base64");
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
