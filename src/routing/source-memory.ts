/**
 * What a source keeps across its lives, as states of the log: a source of the same name on the same
 * bridge finds what the one before it saved. A source on another bridge begins with nothing, and
 * what it replaces is forgotten.
 */
import type { SourceMemory } from "../bridge.ts";
import type { States } from "../log/log.ts";

/** Names of states that belong to sources begin so. */
const PREFIX = "$source/";

/**
 * Forgets all that a source kept: another gateway may have read on since, and what it took is not
 * in this log. What was under way may then come twice; it is never taken for what was before.
 */
export async function forgetMemory(states: States, source: string): Promise<void> {
  const all = states.keys(`${PREFIX}${source}/`);
  if (all.length > 0) await states.save(all.map((name) => [name, null] as const));
}

/** The memory of a source that reads a bridge. */
export async function sourceMemory(
  states: States,
  source: string,
  bridge: string,
): Promise<SourceMemory> {
  const all = `${PREFIX}${source}/`;
  const own = `${all}${bridge}/`;
  const others = states.keys(all).filter((name) => !name.startsWith(own));
  if (others.length > 0) await states.save(others.map((name) => [name, null] as const));
  return {
    load: (name) => states.load(own + name),
    save: (entries) => states.save([...entries].map(([name, value]) => [own + name, value])),
  };
}
