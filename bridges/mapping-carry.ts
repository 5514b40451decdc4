/**
 * Runs the mapping table for the codecs: the headers of ours that carry properties, both ways, and
 * what a message has that a protocol has no place for. Made once for each protocol; what runs for
 * each message are loops over ready closures.
 */
import { type Loss, type MappedField, type MappingRow, noLosses } from "../src/bridge.ts";
import type { Message, Properties } from "../src/message.ts";
import { escapePrefix } from "./mapping.ts";

/** Properties as they are being read. */
export type PropertiesMade = { -readonly [Name in keyof Properties]: Properties[Name] };

/** What a header of ours holds: text, or bytes that may be no text. */
export type Carried = string | Uint8Array;

/** One property that travels in a header of ours. */
export interface Carrier {
  readonly field: keyof Properties;
  readonly header: string;
  /** What stands in the header; undefined: the message does not say it. */
  readonly write: (properties: Properties) => Carried | undefined;
  /** Sets the property; false when the value is not what this gateway writes. */
  readonly take: (properties: PropertiesMade, value: Carried) => boolean;
}

type Named<T> = {
  [K in keyof Properties]-?: Required<Properties>[K] extends T ? K : never;
}[keyof Properties];

type Kind = "text" | "number" | "flag" | "carried";

/** What values of each property are; `satisfies` keeps it complete. */
const KINDS = {
  contentType: "text",
  contentEncoding: "text",
  correlationId: "carried",
  replyTo: "text",
  type: "text",
  priority: "number",
  expiresAtMs: "number",
  messageId: "text",
  userId: "text",
  appId: "text",
  durable: "flag",
  retain: "flag",
  textBody: "flag",
} as const satisfies Record<keyof Properties, Kind>;

const NUMBER = /^-?\d{1,16}(?:\.\d{1,17})?$/;

/** Whether a field of the table is one of a message's properties. */
export function isProperty(field: MappedField): field is keyof Properties {
  return Object.hasOwn(KINDS, field);
}

/** The properties that rows put into headers of ours, in the rows' order. */
export function carriersOf(rows: readonly MappingRow[]): readonly Carrier[] {
  return rows.flatMap(({ field, by, place, form }) =>
    by === "header" && isProperty(field) ? [carrier(field, place, form)] : [],
  );
}

/** The headers that keep of a property what the protocol's own place can't hold. */
export function sparesOf(rows: readonly MappingRow[]): ReadonlyMap<MappedField, Carrier> {
  const spares = rows.flatMap(({ field, spare }) =>
    spare !== undefined && isProperty(field) ? [[field, carrier(field, spare, "")] as const] : [],
  );
  return new Map(spares);
}

/** Every name of a header of ours. */
export function ownNames(rows: readonly MappingRow[]): ReadonlySet<string> {
  const names = rows.flatMap(({ by, place, spare }) => [
    ...(by === "header" ? [place] : []),
    ...(spare === undefined ? [] : [spare]),
  ]);
  return new Set(names);
}

/** Whether a reader would take a header of this name for one of ours, or for an escaped one. */
export function isOurs(names: ReadonlySet<string>, name: string): boolean {
  if (names.has(name)) return true;
  return name.startsWith(escapePrefix) && isOurs(names, name.slice(escapePrefix.length));
}

/** The name of the header of ours, or the spare one, of a field. The table must have it. */
export function headerOf(rows: readonly MappingRow[], field: MappedField): string {
  const row = rows.find((each) => each.field === field);
  const name = row?.by === "header" ? row.place : row?.spare;
  if (name === undefined) throw new RangeError(`the mapping table has no header for ${field}`);
  return name;
}

function carrier(field: keyof Properties, header: string, form: string): Carrier {
  const one = (name: Named<string>): Carrier => textCarrier(name, header);
  if (field === "correlationId") return correlationCarrier(header);
  if (field === "priority" || field === "expiresAtMs") return numberCarrier(field, header);
  if (field === "durable" || field === "retain" || field === "textBody") {
    return flagCarrier(field, header, form === "bit" ? ["1", "0"] : ["true", "false"]);
  }
  return one(field);
}

function textCarrier(field: Named<string>, header: string): Carrier {
  return {
    field,
    header,
    write: (properties) => properties[field],
    take: (properties, value) => {
      if (typeof value !== "string") return false;
      properties[field] = value;
      return true;
    },
  };
}

function numberCarrier(field: Named<number>, header: string): Carrier {
  return {
    field,
    header,
    write: (properties) => {
      const value = properties[field];
      return value === undefined ? undefined : String(value);
    },
    take: (properties, value) => {
      if (typeof value !== "string" || !NUMBER.test(value)) return false;
      properties[field] = Number(value);
      return true;
    },
  };
}

function flagCarrier(
  field: Named<boolean>,
  header: string,
  [yes, no]: readonly [yes: string, no: string],
): Carrier {
  return {
    field,
    header,
    write: (properties) => {
      const value = properties[field];
      return value === undefined ? undefined : value ? yes : no;
    },
    take: (properties, value) => {
      if (value !== yes && value !== no) return false;
      properties[field] = value === yes;
      return true;
    },
  };
}

function correlationCarrier(header: string): Carrier {
  return {
    field: "correlationId",
    header,
    write: ({ correlationId }) => correlationId,
    take: (properties, value) => {
      properties.correlationId = value;
      return true;
    },
  };
}

const HAS: Partial<Record<MappedField, (message: Message) => boolean>> = {
  key: ({ key }) => key !== null,
  tombstone: ({ body }) => body === null,
  headers: ({ headers }) => headers.length > 0,
};

/** What a message has that rows have no place for. The id and the time are not told of. */
export function losesBy(
  rows: readonly MappingRow[],
  protocol: string,
): (message: Message) => readonly Loss[] {
  const checks = rows.flatMap(({ field, by }) => {
    const has = isProperty(field) ? hasProperty(field) : HAS[field];
    if (by !== "none" || has === undefined) return [];
    const what = `${protocol} has no place for ${field === "headers" ? "headers" : `the ${field}`}`;
    return [{ has, loss: { field, what } }];
  });
  if (checks.length === 0) return () => noLosses;
  return (message) => {
    const lost = checks.flatMap(({ has, loss }) => (has(message) ? [loss] : []));
    return lost.length === 0 ? noLosses : lost;
  };
}

function hasProperty(field: keyof Properties): (message: Message) => boolean {
  // Absent is durable, and an address says whether it is retained.
  if (field === "durable") return ({ properties }) => properties.durable === false;
  return ({ properties }) => properties[field] !== undefined && properties[field] !== false;
}
