/**
 * Headers as the two maps of a message: `x-opt-…` are message annotations, all others application
 * properties. Maps have unique names and types. An unchanged header of an original keeps its entry
 * byte for byte; text goes out as a string and other bytes as binary. A repeated name is kept as
 * `name#2`, and `isthmus-header-names` then lists the true ones.
 */
import { isUtf8 } from "node:buffer";
import type { Header, Message } from "../../src/message.ts";
import { ORIGINAL_HEADER, type Original } from "./original.ts";
import { mapSection, sectionCode } from "./sections.ts";
import { ANNOTATION_PREFIX, ownProperty, type ViewHeader } from "./view.ts";
import {
  type Encoded,
  encodeBinary,
  encodeByte,
  encodeNull,
  encodeString,
  encodeSymbol,
} from "./wire.ts";

/** The JMS annotation that says what `to` is: 0 a queue, 1 a topic. */
const JMS_DESTINATION = "x-opt-jms-dest";
const JMS_KINDS = { queue: 0, topic: 1 } as const;

type Pair = readonly [Encoded, Encoded];

/** The two sections of a message's headers. */
export interface Entries {
  readonly annotations: Encoded;
  readonly application: Encoded;
}

/** What the entries depend on beside the message. */
export interface EntryContext {
  readonly original: Original | null;
  readonly kind: "queue" | "topic" | null;
  /** Our own application properties. */
  readonly own: readonly Pair[];
}

/** The sections of the headers and of our own properties. */
export function encodeEntries(message: Message, context: EntryContext): Entries {
  const unchanged = matcher(context.original);
  const annotations = new Map<string, Pair>();
  const rest: { header: Header; from: ViewHeader | null }[] = [];
  for (const header of message.headers) {
    if (header.name === ORIGINAL_HEADER && context.original !== null) continue;
    const from = unchanged(header);
    const isAnnotation =
      from === null ? header.name.startsWith(ANNOTATION_PREFIX) : from.section === "annotation";
    if (isAnnotation && !annotations.has(header.name)) {
      annotations.set(header.name, annotationPair(header, from, context.kind));
    } else {
      rest.push({ header, from: from?.section === "application" ? from : null });
    }
  }
  return {
    annotations: mapSection(sectionCode.messageAnnotations, [...annotations.values()]),
    application: mapSection(sectionCode.applicationProperties, applicationPairs(rest, context.own)),
  };
}

/** Bytes as a value: text where they are UTF-8, else binary. */
export function encodeBytes(bytes: Uint8Array | null): Encoded {
  if (bytes === null) return encodeNull();
  return isUtf8(bytes) ? encodeString(Buffer.from(bytes).toString("utf8")) : encodeBinary(bytes);
}

/** Our own application property. */
export function ownPair(name: string, value: Encoded): Pair {
  return [encodeString(name), value];
}

/** Finds the entry that a header was read from; each entry is found once. */
function matcher(original: Original | null): (header: Header) => ViewHeader | null {
  const entries = new Set(original?.view.headers);
  return (header) => {
    for (const entry of entries) {
      if (entry.name !== header.name || !sameBytes(entry.value, header.value)) continue;
      entries.delete(entry);
      return entry;
    }
    return null;
  };
}

/** Whether two values are the same, also where both are none. */
export function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return Buffer.compare(a, b) === 0;
}

function annotationPair(
  { name, value }: Header,
  from: ViewHeader | null,
  kind: EntryContext["kind"],
): Pair {
  const key = from?.entry.key.raw ?? encodeSymbol(name);
  // It goes with the address, which is the target's now.
  if (name === JMS_DESTINATION && kind !== null) return [key, encodeByte(JMS_KINDS[kind])];
  return [key, from?.entry.value.raw ?? encodeBytes(value)];
}

function applicationPairs(
  rest: readonly { header: Header; from: ViewHeader | null }[],
  own: readonly Pair[],
): readonly Pair[] {
  const names = rest.map(({ header }) => header.name);
  const keys = entryKeys(names);
  const pairs = rest.map(({ header, from }, index): Pair => {
    const key = keys[index] ?? header.name;
    const isTrueName = key === header.name;
    return [
      isTrueName && from !== null ? from.entry.key.raw : encodeString(key),
      from?.entry.value.raw ?? encodeBytes(header.value),
    ];
  });
  const exact = keys.every((key, index) => key === names[index]);
  const listed = exact ? [] : [ownPair(ownProperty.names, encodeString(JSON.stringify(names)))];
  return [...pairs, ...listed, ...own];
}

const RESERVED: readonly string[] = Object.values(ownProperty);

/**
 * The key of each header, in order: the name itself where it is free, else `name#2` and so on. The
 * same names always give the same keys, which is how a reader finds them again.
 */
export function entryKeys(names: readonly string[]): readonly string[] {
  const used = new Set(RESERVED);
  const next = new Map<string, number>();
  return names.map((name) => {
    let key = name;
    let n = next.get(name) ?? 2;
    for (; used.has(key); n += 1) key = `${name}#${n}`;
    next.set(name, n);
    used.add(key);
    return key;
  });
}

/** The headers with the true names that were listed, in the listed order; others follow. */
export function trueNames(
  headers: readonly ViewHeader[],
  listed: string | null,
): readonly Header[] {
  const plain = headers.map(({ name, value }) => ({ name, value }));
  const names = parseNames(listed);
  if (names.length === 0) return plain;
  const keys = entryKeys(names);
  const trueName = new Map(keys.map((key, index) => [key, names[index] ?? key]));
  return plain.map(({ name, value }) => ({ name: trueName.get(name) ?? name, value }));
}

/** None when nobody of ours wrote them. */
function parseNames(text: string | null): readonly string[] {
  const parsed = text === null ? null : parseJson(text);
  if (!Array.isArray(parsed)) return [];
  return parsed.every((name): name is string => typeof name === "string") ? parsed : [];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Another program's property by our name: its headers are taken as they stand in the map.
    return null;
  }
}
