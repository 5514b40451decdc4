/**
 * What the values of expressions become in a message: keys, header values, bodies, text.
 */
import { Buffer } from "node:buffer";
import { stringifyJson } from "../json.ts";
import { bodyBytesMax, keyBytesMax } from "../limits.ts";
import { encodeText } from "../message.ts";
import { EvaluationError } from "./failure.ts";

const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * A value as text: text as it is, numbers as digits, lists and maps as compact JSON, bytes as the
 * UTF-8 that they are. @throws EvaluationError bytes that are not UTF-8.
 */
export function toText(value: unknown): string {
  if (typeof value === "string") return value;
  if (!(value instanceof Uint8Array)) return stringifyJson(value);
  try {
    return strictDecoder.decode(value);
  } catch (cause) {
    throw new EvaluationError("the bytes are not UTF-8 text", { cause });
  }
}

/** A value as bytes: bytes as they are, null as null, everything else as its text in UTF-8. */
export function toBytes(value: unknown): Uint8Array | null {
  if (value === null || value instanceof Uint8Array) return value;
  return encodeText(toText(value));
}

/** A message's key: null is no key. @throws EvaluationError it is too long. */
export function toKey(value: unknown): Uint8Array | null {
  const key = toBytes(value);
  if (key === null || key.length <= keyBytesMax) return key;
  throw new EvaluationError(`the key has ${key.length} bytes, more than ${keyBytesMax}`);
}

/** A body, and whether its bytes are JSON made here. */
export interface BodyBytes {
  readonly body: Uint8Array | null;
  readonly form: "json" | "text" | "bytes" | "none";
}

/** A message's body: null is a tombstone. @throws EvaluationError it is too long. */
export function toBody(value: unknown): BodyBytes {
  const body = toBytes(value);
  if (body === null) return { body, form: "none" };
  if (body.length > bodyBytesMax) {
    throw new EvaluationError(`the body has ${body.length} bytes, more than ${bodyBytesMax}`);
  }
  if (value instanceof Uint8Array) return { body, form: "bytes" };
  return { body, form: typeof value === "string" ? "text" : "json" };
}

/** A value inside a list or map that becomes JSON: bytes are written as base64. */
export function toMember(value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value;
}
