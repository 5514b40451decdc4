/**
 * The variables of expressions: views of the message, each read only when it is asked for.
 */
import { decodeText, type Header } from "../../message.ts";
import { Failure } from "../failure.ts";
import type { Evaluation, Run } from "./evaluation.ts";

/** What a message has only once it is in the log. */
export const STORED_VARIABLES: ReadonlySet<string> = new Set(["stream", "partition", "offset"]);
/** Variables that look into the body. */
export const BODY_VARIABLES: ReadonlySet<string> = new Set(["body", "text", "bytes"]);

const notJson = new Failure("the body is not JSON");
const notStored = new Failure("the message is not stored yet");
const noItem = new Failure("there is no item");
const noClaims = new Failure("there is no caller");
const noParams: Readonly<Record<string, string>> = Object.freeze({});

/** Keeps a leading U+FEFF: a key or header given on must be the same bytes. */
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** All variables by name. */
export const variables: ReadonlyMap<string, Run> = new Map<string, Run>([
  ["body", readBody],
  ["text", (evaluation) => evaluation.message.text],
  ["bytes", (evaluation) => evaluation.message.body],
  ["key", (evaluation) => textOrBytes(evaluation.message.key)],
  ["headers", (evaluation) => headerMap(evaluation.message.headers)],
  ["properties", (evaluation) => evaluation.message.properties],
  ["params", (evaluation) => evaluation.message.origin?.params ?? noParams],
  ["id", (evaluation) => evaluation.message.id],
  ["timestamp", (evaluation) => evaluation.message.timestampMs],
  ["stream", (evaluation) => evaluation.message.stream ?? notStored],
  ["partition", (evaluation) => evaluation.message.partition ?? notStored],
  ["offset", (evaluation) => evaluation.message.offset ?? notStored],
  ["origin", (evaluation) => evaluation.message.origin],
  ["now", takenAt],
  ["claims", (evaluation) => evaluation.item ?? noClaims],
  ["item", (evaluation) => (evaluation.item === undefined ? noItem : evaluation.item)],
]);

/** The last header of a name, letter case ignored, as text; `""` when there is none. */
export function headerText(name: string): Run {
  const wanted = name.toLowerCase();
  return (evaluation) => findHeaderText(evaluation.message.headers, wanted);
}

/** The same for a lower-case name that is known only now. */
export function findHeaderText(headers: readonly Header[], wanted: string): string {
  for (let index = headers.length - 1; index >= 0; index--) {
    const header = headers[index];
    if (header === undefined || header.name.length !== wanted.length) continue;
    if (header.name !== wanted && header.name.toLowerCase() !== wanted) continue;
    return header.value === null ? "" : decodeText(header.value);
  }
  return "";
}

/** `headers.name`: the last one of exactly this name. */
export function headerField(name: string): Run {
  const missing = new Failure(`no such header: ${name}`);
  return (evaluation) => {
    const { headers } = evaluation.message;
    for (let index = headers.length - 1; index >= 0; index--) {
      const header = headers[index];
      if (header?.name === name) return textOrBytes(header.value);
    }
    return missing;
  };
}

/** A tombstone's body is null; a body that isn't JSON is absent. */
function readBody(evaluation: Evaluation): unknown {
  const { message } = evaluation;
  const json = message.json;
  if (json !== undefined) return json;
  return message.body === null ? null : notJson;
}

/** When the gateway took the message: the same for a retry, a replay and a preview. */
function takenAt({ message }: Evaluation): Date {
  return new Date(message.appendedAtMs ?? message.timestampMs);
}

function headerMap(headers: readonly Header[]): Readonly<Record<string, unknown>> {
  // Without a prototype, `__proto__` is a name like any other.
  const map = Object.create(null) as Record<string, unknown>;
  for (const header of headers) map[header.name] = textOrBytes(header.value);
  return map;
}

function textOrBytes(bytes: Uint8Array | null): string | Uint8Array | null {
  if (bytes === null) return null;
  try {
    return strictDecoder.decode(bytes);
  } catch {
    // Not UTF-8: the expression sees the bytes themselves.
    return bytes;
  }
}
