/**
 * What a message from a broker is known by when the broker delivers it again: a digest of its place
 * there and of all that it holds. It is kept as the message's dedupe key, in the same batch, so a
 * crash between the append and the ack repeats nothing. Content is in it because places come back:
 * of a topic that was made anew, or cut by an election, no message may be taken for another one.
 */
import type { SourceKey } from "../log/stream.ts";
import type { Header, Message } from "../message.ts";

/** No name of a hook, source or route begins so: nobody else's keys meet these. */
const PREFIX = "$source/";

/**
 * The key of a message that has a place in its source, or an `id` of its producer. A place is
 * always looked up, and so is an id that is unique; another one only where the broker says that it
 * may have delivered the message before: programs use ids again. Null: nothing tells a redelivery
 * of it. `source` tells sources apart: what two of them read is two messages.
 */
export function sourceKey(
  source: string,
  message: Message,
  { id, isUnique }: { readonly id: string | null; readonly isUnique: boolean },
): SourceKey | null {
  const { origin } = message;
  if (origin === null) return null;
  if (!isUnique && origin.partition !== null && origin.offset !== null) {
    const { address, partition, offset } = origin;
    const place = [source, address, partition, offset, message.timestampMs];
    return { key: keyOf(place, message), isLookedUp: true };
  }
  if (id === null) return null;
  // A time may be the one of this delivery.
  const isLookedUp = isUnique || origin.redelivered === true;
  return { key: keyOf([source, origin.address, id], message), isLookedUp };
}

function keyOf(place: readonly (string | number)[], message: Message): string {
  const digest = new Bun.CryptoHasher("sha256");
  const { key, body, headers } = message;
  digest.update(JSON.stringify([place, sizes(key, body, headers)]));
  if (key !== null) digest.update(key);
  for (const { value } of headers) if (value !== null) digest.update(value);
  if (body !== null) digest.update(body);
  return PREFIX + digest.digest("base64url").slice(0, 32);
}

/** With the sizes first, equal digests are equal parts and not parts cut elsewhere. */
function sizes(key: Uint8Array | null, body: Uint8Array | null, headers: readonly Header[]) {
  const named = headers.map(({ name, value }) => [name, value?.length ?? -1]);
  return [key?.length ?? -1, body?.length ?? -1, named];
}
