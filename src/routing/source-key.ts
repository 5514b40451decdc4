/**
 * What a message from a broker is known by when the broker delivers it again: its place there, and
 * a hash of all that it holds. It is kept as the message's dedupe key, in the same batch, so a
 * crash between the append and the ack repeats nothing. Content is in it because places come back:
 * of a topic that was made anew, or cut by an election, no message may be taken for another one.
 */
import type { SourceKey } from "../log/stream.ts";
import type { Header, Message, Origin } from "../message.ts";

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
    return { key: placeKey(source, origin, message), isLookedUp: true };
  }
  if (id === null) return null;
  // A time may be the one of this delivery.
  const isLookedUp = isUnique || origin.redelivered === true;
  return { key: keyOf([source, origin.address, id], message), isLookedUp };
}

/**
 * The key of a place. The place stands in it, so two keys are equal only for what is read at one
 * place: whether that is one message a fast hash can tell, which nobody gains by outwitting.
 */
function placeKey(
  source: string,
  { address, partition, offset }: Origin,
  message: Message,
): string {
  const name = digestOf(source, address);
  const { key, body, headers, timestampMs } = message;
  let sizes = `${timestampMs},${key?.length ?? -1},${body?.length ?? -1}`;
  for (const { name, value } of headers) sizes += `,${value?.length ?? -1},${name.length},${name}`;
  let hash = Bun.hash.xxHash3(sizes);
  if (key !== null) hash = Bun.hash.xxHash3(key, hash);
  for (const { value } of headers) if (value !== null) hash = Bun.hash.xxHash3(value, hash);
  if (body !== null) hash = Bun.hash.xxHash3(body, hash);
  return `${PREFIX}${name}/${partition}/${offset}/${hash.toString(36)}`;
}

/** Messages come in batches: the place of one is nearly always the place of the next. */
let last = { source: "", address: "", digest: "" };

function digestOf(source: string, address: string): string {
  if (source !== last.source || address !== last.address || last.digest === "") {
    const place = JSON.stringify([source, address]);
    const digest = new Bun.CryptoHasher("sha256").update(place).digest("base64url").slice(0, 22);
    last = { source, address, digest };
  }
  return last.digest;
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
