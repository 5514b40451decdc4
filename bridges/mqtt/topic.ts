/**
 * Topic names and topic filters. A filter of ours may name a level, `plant/{line}/temp`: it becomes
 * `plant/+/temp` for the broker, and what stood there is a parameter of the message.
 */

/** Texts of the protocol carry their length in two bytes. Bytes of UTF-8. */
export const textBytesMax = 65_535;

const CAPTURE = /^\{([A-Za-z_][A-Za-z0-9_]*)\}$/;

/** A filter as it was written, made ready for the broker and for matching. */
export interface Filter {
  /** What is subscribed to. */
  readonly text: string;
  /** The names of the captures by the index of their level. */
  readonly captures: ReadonlyMap<number, string>;
}

/**
 * Code points that a broker may cut the connection for: controls, surrogates and non-characters
 * (MQTT 1.5.3 forbids the first, advises against the others, and brokers enforce both).
 */
export function isSafeText(text: string): boolean {
  // eslint-disable-next-line no-control-regex -- these are the very characters that are looked for
  return !/[\0-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]|\p{Cs}|[\u{1fffe}\u{1ffff}]/u.test(text);
}

/** Why a message can't be published to a topic, or null. */
export function topicProblem(topic: string): string | null {
  if (topic === "") return "the topic is empty";
  if (/[+#]/.test(topic)) return `the topic "${topic}" holds + or #, which only a filter may`;
  if (!isSafeText(topic)) return "the topic holds a character that MQTT does not allow";
  const bytes = Buffer.byteLength(topic);
  return bytes <= textBytesMax ? null : `the topic is longer than ${textBytesMax} bytes`;
}

/** Reads a filter with captures; text that says what is wrong with it otherwise. */
export function parseFilter(text: string): Filter | { readonly problem: string } {
  if (text === "") return { problem: "the topic is empty" };
  if (!isSafeText(text)) return { problem: "holds a character that MQTT does not allow" };
  if (Buffer.byteLength(text) > textBytesMax) {
    return { problem: `is longer than ${textBytesMax} bytes` };
  }
  const levels = text.split("/");
  const captures = new Map<number, string>();
  for (const [index, level] of levels.entries()) {
    const problem = levelProblem(level, index === levels.length - 1);
    if (problem !== null) return { problem };
    const name = CAPTURE.exec(level)?.[1];
    if (name === undefined) continue;
    if ([...captures.values()].includes(name)) return { problem: `names {${name}} twice` };
    captures.set(index, name);
  }
  return { text: levels.map((level) => (CAPTURE.test(level) ? "+" : level)).join("/"), captures };
}

function levelProblem(level: string, isLast: boolean): string | null {
  if (level === "+" || CAPTURE.test(level)) return null;
  if (level === "#") return isLast ? null : "# must be the last level";
  if (/[+#]/.test(level)) return `+ and # must stand alone in their level, not as "${level}"`;
  if (/[{}]/.test(level)) return `"${level}" is no capture: write {name} as a level of its own`;
  return null;
}

/** What the captures of a filter stand for in a topic; null when it has none. */
export function paramsOf(filter: Filter, topic: string): Record<string, string> | null {
  if (filter.captures.size === 0) return null;
  const levels = topic.split("/");
  const params: [string, string][] = [];
  for (const [index, name] of filter.captures) params.push([name, levels[index] ?? ""]);
  return Object.fromEntries(params);
}
