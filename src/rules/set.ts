/**
 * `set`: the change that a rule makes to a message. Parts that it does not name stay as they are,
 * bytes included; id, time and origin always do.
 */
import type { Header, Message, Properties, StoredMessage } from "../message.ts";
import { type BodyBytes, toBody, toBytes, toKey, toText } from "./convert.ts";
import type { SetDocument } from "./document.ts";
import { EvaluationError } from "./failure.ts";
import { compileTemplate, type Template } from "./template.ts";

/** Makes the changed message. @throws EvaluationError a failure of this message. */
export type Change = (message: StoredMessage) => Message;

/** What each property holds. */
export const PROPERTY_TYPES = {
  contentType: "text",
  contentEncoding: "text",
  correlationId: "text or bytes",
  replyTo: "text",
  type: "text",
  priority: "whole number",
  expiresAtMs: "whole number",
  messageId: "text",
  userId: "text",
  appId: "text",
  durable: "boolean",
  retain: "boolean",
  textBody: "boolean",
} as const satisfies Record<keyof Properties, string>;

type Named = readonly (readonly [name: string, template: Template])[];

/**
 * Compiles `set`; null when it changes nothing. `site` names the rule. @throws InvalidError an
 * expression is wrong.
 */
export function compileSet(set: SetDocument, site = ""): Change | null {
  const key = set.key === undefined ? null : compileTemplate(set.key, { site: `${site}/key` });
  const body = set.body === undefined ? null : compileTemplate(set.body, { site: `${site}/body` });
  const headers = named(set.headers, `${site}/headers`);
  const properties = named(set.properties, `${site}/properties`);
  if (key === null && body === null && headers.length === 0 && properties.length === 0) return null;
  return (message) => {
    const newBody = body === null ? null : toBody(body.render(message));
    return {
      id: message.id,
      key: key === null ? message.key : toKey(key.render(message)),
      properties: changeProperties(message, properties, newBody),
      headers: headers.length === 0 ? message.headers : changeHeaders(message, headers),
      body: newBody === null ? message.body : newBody.body,
      timestampMs: message.timestampMs,
      origin: message.origin,
    };
  };
}

function named(templates: Readonly<Record<string, unknown>> | undefined, site: string): Named {
  return Object.entries(templates ?? {}).map(
    ([name, value]) => [name, compileTemplate(value, { site: `${site}/${name}` })] as const,
  );
}

/** Merged by name, letter case ignored: each set name has one value afterwards, or none. */
function changeHeaders(message: StoredMessage, changes: Named): readonly Header[] {
  const replaced = new Set(changes.map(([name]) => name.toLowerCase()));
  const result = message.headers.filter((header) => !replaced.has(header.name.toLowerCase()));
  for (const [name, template] of changes) {
    const value = template.render(message);
    if (value !== null) result.push({ name, value: toBytes(value) });
  }
  return result;
}

function changeProperties(
  message: StoredMessage,
  changes: Named,
  body: BodyBytes | null,
): Properties {
  const before = message.properties;
  if (body === null && changes.length === 0) return before;
  const result: Record<string, unknown> = { ...before };
  if (body !== null) describeBody(result, body);
  for (const [name, template] of changes) {
    const value = template.render(message);
    if (value === null) delete result[name];
    else result[name] = propertyValue(name as keyof Properties, value);
  }
  return result as Properties;
}

/** A new body is not encoded as the old one was, and JSON says that it is JSON. */
function describeBody(properties: Record<string, unknown>, { form }: BodyBytes): void {
  if (form === "bytes") return;
  delete properties["contentEncoding"];
  if (form === "json") properties["contentType"] = "application/json";
  if (form === "none") delete properties["textBody"];
}

function propertyValue(name: keyof Properties, value: unknown): unknown {
  const type = PROPERTY_TYPES[name];
  switch (type) {
    case "text":
      return toText(value);
    case "text or bytes":
      return value instanceof Uint8Array ? value : toText(value);
    case "whole number":
      if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
      break;
    case "boolean":
      if (typeof value === "boolean") return value;
      break;
  }
  throw new EvaluationError(`property ${name} needs a ${type}, not ${toText(value)}`);
}
