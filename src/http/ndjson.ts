/**
 * NDJSON: one message a line. Lines are counted from 1 as an editor shows them, blank ones too,
 * and one line that is wrong refuses all of them.
 */
import { isUtf8 } from "node:buffer";
import { type InvalidDetail, InvalidError, LimitError } from "../errors.ts";
import { parseJson } from "../json.ts";
import { batchMessagesMax, problemsMax } from "../limits.ts";
import { type Draft, MESSAGE_MEMBERS, MessageReader } from "./message-input.ts";

const BOM = 0xfeff;
const KNOWN = [...MESSAGE_MEMBERS, "timestamp"] as const;

/** The messages of a body. @throws InvalidError every line that is wrong. @throws LimitError */
export function parseLines(body: Uint8Array, nowMs: number): readonly Draft[] {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (!isUtf8(bytes)) throw new InvalidError("the body is not UTF-8");
  // Decoded once: lines are then slices of one text, which costs a tenth of decoding each.
  const all = bytes.toString("utf8");
  const drafts: Draft[] = [];
  const errors: InvalidDetail[] = [];
  let line = 0;
  for (let start = 0; start < all.length && errors.length < problemsMax; ) {
    const newline = all.indexOf("\n", start);
    const end = newline === -1 ? all.length : newline;
    const text = trimmed(all.slice(start, end));
    line++;
    start = end + 1;
    if (text === "") continue;
    if (drafts.length >= batchMessagesMax) {
      throw new LimitError("too-large", `a request holds at most ${batchMessagesMax} messages`);
    }
    drafts.push(parseLine(text.charCodeAt(0) === BOM ? text.slice(1) : text, line, errors, nowMs));
  }
  const [first] = errors;
  if (first === undefined) return drafts;
  throw new InvalidError(`line ${first.line ?? 0}: ${first.detail}`, errors.slice(0, problemsMax));
}

const OPENING = 0x7b;
const CLOSING = 0x7d;

/** Without the space around it; a usual line has none, and is not copied. */
function trimmed(line: string): string {
  const isBare = line.charCodeAt(0) === OPENING && line.charCodeAt(line.length - 1) === CLOSING;
  return isBare ? line : line.trim();
}

function parseLine(text: string, line: number, errors: InvalidDetail[], nowMs: number): Draft {
  const reader = new MessageReader(`/${line}`, line);
  const members = membersOf(text, reader);
  const draft = reader.read(members, KNOWN);
  const { timestamp = nowMs } = members;
  const isTime = typeof timestamp === "number" && Number.isSafeInteger(timestamp);
  if (!isTime) reader.add("/timestamp", "expected Unix milliseconds");
  if (reader.errors.length > 0) errors.push(...reader.errors);
  const { key, headers, properties, body } = draft;
  return { key, headers, properties, body, timestampMs: isTime ? timestamp : nowMs };
}

function membersOf(text: string, reader: MessageReader): Readonly<Record<string, unknown>> {
  try {
    const value = parseJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
    reader.add("", "expected a JSON object");
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    reader.add("", error.message);
  }
  return {};
}
