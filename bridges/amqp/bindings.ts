/**
 * The bindings of a source's own queue. A broker does not tell what a queue is bound to, so what
 * was bound is kept in the source's memory, and what its address no longer names is unbound: else
 * an old binding would go on bringing messages that nobody wants any more.
 */
import type { SourceMemory } from "../../src/bridge.ts";
import type { BrokerRefusal, Link } from "./link.ts";
import type { Binding } from "./places.ts";

/** A memory's record takes no more; longer lists are not kept, and then not unbound. Bytes. */
const RECORD_BYTES_MAX = 4096;

interface Bound extends Binding {
  readonly exchange: string;
}

/**
 * Binds a queue to an exchange by these and no other keys, as far as is known.
 * Returns the broker's refusal, or null. @throws DisconnectedError
 */
export async function bindQueue(
  link: Link,
  queue: string,
  wanted: { readonly exchange: string; readonly bind: readonly Binding[] },
  memory: SourceMemory | null,
): Promise<BrokerRefusal | null> {
  const { exchange } = wanted;
  const bound = wanted.bind.map((binding) => ({ exchange, ...binding }));
  const refusal = await link.attempt(async (channel) => {
    for (const { key, arguments: table } of bound) {
      await channel.bindQueue(queue, exchange, key, table);
    }
  });
  if (refusal !== null || memory === null) return refusal;
  const name = `bindings ${queue}`;
  const texts = new Set(bound.map((one) => JSON.stringify(one)));
  for (const old of boundOf(await memory.load(name))) {
    if (texts.has(JSON.stringify(old))) continue;
    // Refused where the exchange has gone, and its bindings with it.
    await link.attempt((channel) =>
      channel.unbindQueue(queue, old.exchange, old.key, old.arguments),
    );
  }
  const bytes = Buffer.from(JSON.stringify(bound));
  const record = bytes.byteLength <= RECORD_BYTES_MAX ? new Uint8Array(bytes) : null;
  await memory.save([[name, record]]);
  return null;
}

/** What this program wrote before, in the form in which it writes it. */
function boundOf(bytes: Uint8Array | null): readonly Bound[] {
  return bytes === null ? [] : (JSON.parse(Buffer.from(bytes).toString("utf8")) as Bound[]);
}
