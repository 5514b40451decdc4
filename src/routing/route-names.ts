/** What a route's state record and its stream of waiting messages are called. Fixed: on disk. */
import type { Partition } from "../log/log.ts";
import { WAIT_STREAM_PREFIX } from "../log/retention.ts";

/** The stream in which a route's messages wait: internal, and the route's alone. */
export function waitStream(rule: string, stateKey: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(stateKey).digest("hex");
  return `${WAIT_STREAM_PREFIX}${rule.slice(0, 40)}.${hash.slice(0, 16)}`;
}

/** The name of a route's state record. */
export function routeKey(rule: string, target: string, partition: Partition): string {
  return `route/${rule}/${partition.id.stream}/${partition.id.index}/${target}`;
}

/** The name of what is kept of a target that wants nothing more. */
export function disabledKey(rule: string, target: string): string {
  return `disabled/${rule}/${target}`;
}
