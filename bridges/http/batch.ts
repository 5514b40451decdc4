/**
 * Several messages as one request: their bodies as a JSON array or a line each, or events as a
 * batch of CloudEvents. What is none of that can't be in one. Numbers stay as they are written:
 * bodies are looked at, and not written anew.
 */
import { isUtf8 } from "node:buffer";
import { type Loss, noLosses } from "../../src/bridge.ts";
import type { Message } from "../../src/message.ts";

/** The forms that a target may choose from, the first by default. */
export const batchForms: readonly string[] = ["json", "ndjson"];

/** The form that events take. */
const EVENTS = "cloudevents";

const TYPES: Readonly<Record<string, string>> = {
  json: "application/json",
  ndjson: "application/x-ndjson",
  [EVENTS]: "application/cloudevents-batch+json",
};

/** Why a message can't be in a batch, or null. */
export function batchProblem({ body, properties }: Message): string | null {
  const encoding = properties.contentEncoding;
  if (encoding !== undefined && encoding !== "identity") {
    return `a batch holds JSON; the body is encoded as ${JSON.stringify(encoding)}`;
  }
  if (body === null) return null;
  return isJson(body) ? null : "a batch holds JSON; the body is none";
}

/**
 * One message in place of several, to be sent as any other. Its id is the same whenever the same
 * messages go together. None of them has a problem.
 */
export function batchMessage(messages: readonly Message[], form: string, nowMs: number): Message {
  const isLines = form === "ndjson";
  const separator = Buffer.from(isLines ? "\n" : ",");
  const parts: Uint8Array[] = [];
  for (const [index, { body }] of messages.entries()) {
    if (index > 0) parts.push(separator);
    parts.push(body === null ? Buffer.from("null") : isLines ? inOneLine(body) : body);
  }
  const bytes = isLines ? [...parts, separator] : [Buffer.from("["), ...parts, Buffer.from("]")];
  return {
    id: batchId(messages),
    key: null,
    properties: { contentType: TYPES[form] ?? "application/json" },
    headers: [],
    body: Buffer.concat(bytes),
    timestampMs: nowMs,
    origin: null,
  };
}

/** What of a message is not in a batch of a form. */
export function batchLosses({ headers, key, properties }: Message, form: string): readonly Loss[] {
  const losses: Loss[] = headers.map(({ name }) => {
    const what = `the header ${JSON.stringify(name.slice(0, 60))} is not in a batch`;
    return { field: "headers", what };
  });
  // An event has its key and its type among its attributes.
  if (form !== EVENTS) {
    if (key !== null) losses.push({ field: "key", what: "the key is not in a batch" });
    for (const name of Object.keys(properties) as (keyof typeof properties)[]) {
      if (name === "contentType" || properties[name] === undefined) continue;
      losses.push({ field: name, what: `${name} is not in a batch` });
    }
  }
  return losses.length === 0 ? noLosses : losses;
}

function batchId(messages: readonly Message[]): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const { id } of messages) hash.update(`${Buffer.byteLength(id)}:${id}`);
  return `batch_${hash.digest("hex").slice(0, 40)}`;
}

function isJson(body: Uint8Array): boolean {
  if (!isUtf8(body)) return false;
  try {
    JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
    return true;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

/** JSON has line breaks only between its parts, where a space is as good. */
function inOneLine(body: Uint8Array): Uint8Array {
  if (!body.includes(0x0a) && !body.includes(0x0d)) return body;
  return body.map((byte) => (byte === 0x0a || byte === 0x0d ? 0x20 : byte));
}
