/**
 * What `key` and `dedupe` give for a message that comes in. An expression that fails on a message
 * gives none and is counted: intake is never refused for it.
 */
import { dedupeKeyBytesMax } from "../limits.ts";
import type { Message } from "../message.ts";
import { toKey, toText } from "../rules/convert.ts";
import type { Expression } from "../rules/expression.ts";
import { EvaluationError } from "../rules/failure.ts";
import { readable } from "../rules/readable.ts";

/**
 * The key that an expression gives; one that fails gives none, and is counted. An empty one is a
 * missing header or field: it is none either, lest all of them meet in one place.
 */
export function keyFrom(
  expression: Expression,
  message: Message,
  failed: () => void,
): Uint8Array | null {
  const key = attempt(() => toKey(expression.evaluate(readable(message)) ?? null), failed);
  return key === null || key.length === 0 ? null : key;
}

/**
 * The dedupe key that an expression gives, within its hook or source (`name`); none when it fails
 * or is empty: two messages without an id are not the same message.
 */
export function dedupeFrom(
  expression: Expression,
  message: Message,
  { name, failed }: { readonly name: string; readonly failed: () => void },
): string | null {
  const value = attempt(() => {
    const given = expression.evaluate(readable(message)) ?? null;
    return given === null ? null : toText(given);
  }, failed);
  if (value === null || value === "") return null;
  const key = `${name}/${value}`;
  if (Buffer.byteLength(key) <= dedupeKeyBytesMax) return key;
  return `${name}#${new Bun.CryptoHasher("sha256").update(value).digest("hex")}`;
}

/** The message under another key. */
export function withKey(message: Message, key: Uint8Array | null): Message {
  const { id, properties, headers, body, timestampMs, origin } = message;
  return { id, key, properties, headers, body, timestampMs, origin };
}

function attempt<T>(work: () => T, failed: () => void): T | null {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error;
    failed();
    return null;
  }
}
