/**
 * A message as `read` and `tail` print it: one line, tab-separated, made of the JSON form that
 * reads and the socket share. What is not text is shown as base64; nothing is cut off.
 */
import { decodeText } from "../message.ts";

/** The JSON form of a message, as far as a line shows it. */
export interface MessageJson {
  readonly partition?: number;
  readonly offset?: number;
  readonly key?: string | null;
  readonly keyBase64?: string;
  readonly headers?: readonly (readonly [string, string | null | { readonly base64: string }])[];
  readonly appendedAt?: number;
  readonly body?: string | null;
  readonly bodyBase64?: string;
}

/** `PARTITION/OFFSET`, time, key and body; control characters are left to the printer. */
export function messageLine(message: MessageJson): readonly string[] {
  const place = `${message.partition ?? 0}/${message.offset ?? "?"}`;
  const time = timeText(message.appendedAt);
  return [place, time, keyText(message), bodyText(message)];
}

/** Unix milliseconds as RFC 3339; what is no time gives `-`. */
export function timeText(ms: unknown): string {
  const date = typeof ms === "number" ? new Date(ms) : null;
  return date === null || Number.isNaN(date.getTime()) ? "-" : date.toISOString();
}

function keyText(message: MessageJson): string {
  if (message.keyBase64 !== undefined) return `base64:${message.keyBase64}`;
  return message.key ?? "-";
}

function bodyText(message: MessageJson): string {
  if (message.bodyBase64 !== undefined) return `base64:${message.bodyBase64}`;
  if (message.body === null) return "(tombstone)";
  return message.body ?? "";
}

/** Bytes as text when they are UTF-8, exactly; else null. */
export function exactText(bytes: Uint8Array): string | null {
  const text = decodeText(bytes);
  const back = new TextEncoder().encode(text);
  return back.length === bytes.length && Buffer.from(back).equals(bytes) ? text : null;
}
