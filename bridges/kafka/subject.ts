/**
 * What a source reads: the one topic that its address names, or all whose names fit its pattern.
 * Topics come, go, grow and are made anew while they are read, and the group does not say so in
 * time: the source looks itself, and is opened anew when they are not what they were. A topic that
 * was made anew since the last life of the source is known by the id that it had then.
 */
import { RE2JS } from "re2js";
import type { SourceOptions } from "../../src/bridge.ts";
import { InvalidError } from "../../src/errors.ts";
import type { SourceFields } from "./config.ts";
import type { Topic, Topics } from "./topics.ts";

/** A topic's id in the source's memory. */
const MEMORY_PREFIX = "topic/";

/** The topics that an address means at this moment, by name. @throws InvalidError there is none. */
export async function subjectOf(
  topics: Topics,
  fields: SourceFields,
  signal?: AbortSignal,
): Promise<readonly Topic[]> {
  const { topic, pattern, create } = fields;
  if (pattern === null) return [await topics.ensure(topic, create, signal)];
  const compiled = RE2JS.compile(pattern);
  const names = (await topics.names()).filter((name) => compiled.matches(name));
  const found = await topics.describeAll(names.toSorted());
  if (found.length > 0) return found;
  throw new InvalidError(`no topic has a name that fits ${pattern}`, [
    { pointer: "/pattern", detail: "no topic has such a name" },
  ]);
}

/** What is different, as a sentence, or null. */
export function changeOf(before: readonly Topic[], after: readonly Topic[]): string | null {
  const old = new Map(before.map((topic) => [topic.name, topic]));
  for (const { name, id, partitions } of after) {
    const known = old.get(name);
    if (known === undefined) return `topic ${name} is new`;
    if (known.id !== id) return `topic ${name} was made anew`;
    if (known.partitions !== partitions) return `topic ${name} has ${partitions} partitions`;
    old.delete(name);
  }
  const [gone] = old.keys();
  return gone === undefined ? null : `topic ${gone} is not there any more`;
}

/** The topics that had another id in the source's last life; their new ids are kept. */
export async function madeAnew(
  topics: readonly Topic[],
  memory: SourceOptions["memory"],
): Promise<{ readonly anew: readonly Topic[]; keep(): Promise<void> }> {
  if (memory === undefined) return { anew: [], keep: () => Promise.resolve() };
  const anew: Topic[] = [];
  const unknown: Topic[] = [];
  for (const topic of topics) {
    const bytes = await memory.load(MEMORY_PREFIX + topic.name);
    const id = bytes === null ? null : Buffer.from(bytes).toString();
    if (id !== null && id !== topic.id) anew.push(topic);
    if (id !== topic.id) unknown.push(topic);
  }
  const keep = async (): Promise<void> => {
    if (unknown.length === 0) return;
    await memory.save(
      unknown.map(({ name, id }) => [MEMORY_PREFIX + name, Buffer.from(id)] as const),
    );
  };
  return { anew, keep };
}
