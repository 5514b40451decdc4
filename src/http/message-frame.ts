/**
 * The socket's `message` frame. Subscribers that stand at the same place get the same text, made
 * once: what follows the subscription's own name is kept beside the message, and so is the whole
 * frame while they call it by the same name. It goes with the message: out of the log's memory.
 */
import { type Cursor, encodeCursor } from "../log/cursor.ts";
import type { StoredMessage } from "../message.ts";
import { type BodyForm, messageMembers } from "./message-json.ts";
import { cursorAtMessage } from "./position.ts";

interface Shared {
  readonly form: BodyForm;
  readonly cursor: Cursor;
  /** From the cursor's text on. */
  readonly tail: string;
  readonly prefix: string;
  readonly frame: string;
}

const shared = new WeakMap<StoredMessage, Shared>();

/** What stands before the cursor in the frames of a subscription. */
export function framePrefix(sub: string): string {
  return `{"op":"message","sub":${JSON.stringify(sub)},"cursor":"`;
}

/** A message's frame; `cursor` is where the other partitions stand. */
export function messageFrame(
  message: StoredMessage,
  form: BodyForm,
  { prefix, cursor }: { readonly prefix: string; readonly cursor: Cursor },
): string {
  const known = shared.get(message);
  const isKnown =
    known !== undefined && known.form === form && isSame(known.cursor, cursor, message.partition);
  if (isKnown && known.prefix === prefix) return known.frame;
  const tail = isKnown ? known.tail : tailOf(message, form, cursor);
  const frame = `${prefix}${tail}`;
  shared.set(message, { form, cursor, tail, prefix, frame });
  return frame;
}

function tailOf(message: StoredMessage, form: BodyForm, cursor: Cursor): string {
  const after = encodeCursor(cursorAtMessage(cursor, message, "after"));
  return `${after}",${messageMembers(message, form)}`;
}

/** Whether cursors agree in all partitions but the message's own. */
function isSame(a: Cursor, b: Cursor, partition: number): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) {
    if (index !== partition && a[index]?.offset !== b[index]?.offset) return false;
  }
  return true;
}
