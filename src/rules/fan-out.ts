/**
 * What a stream as a target makes of a message: one message, or with `each` one for each element
 * of a list, which `${item}` names. Pure: the n-th of a message is always the same.
 */
import type { Outgoing } from "../bridge.ts";
import { eachBytesMax, eachItemsMax, idBytesMax } from "../limits.ts";
import { hopOf, type Message, type Origin, type StoredMessage } from "../message.ts";
import { compileAddress } from "./address.ts";
import { toKey } from "./convert.ts";
import type { TargetDocument } from "./document.ts";
import { compileExpression } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { compileTemplate } from "./template.ts";
import { isName } from "./units.ts";

/** How a stream target renders. */
export interface StreamRender {
  /** The one message; with `each` the first one. @throws EvaluationError also when there is none. */
  readonly one: (message: StoredMessage) => Outgoing;
  /** With `each` all of them, perhaps none; null without. @throws EvaluationError */
  readonly all: ((message: StoredMessage) => readonly Outgoing[]) | null;
}

/** Compiles a stream target; `change` is the rule's own. @throws InvalidError */
export function compileFanOut(
  { name, to, each, key }: TargetDocument & { readonly to: { readonly stream: string } },
  change: (message: StoredMessage) => Message,
): StreamRender {
  const item = each !== undefined;
  const address = compileAddress({ stream: to.stream }, { stream: "" }, name, item);
  const keyed = key === undefined ? null : compileTemplate(key, { site: `${name}/key`, item });
  const render = (message: StoredMessage, value?: unknown): Outgoing => {
    const fields = address.render(message, value);
    const { stream } = fields;
    if (typeof stream !== "string" || !isName(stream)) {
      throw new EvaluationError(`stream: ${JSON.stringify(stream)} is not a stream's name`);
    }
    const changed = change(message);
    const { id, properties, headers, body, timestampMs } = changed;
    const own = keyed === null ? changed.key : toKey(keyed.render(message, value) ?? null);
    const origin = passedOn(message);
    return { message: { id, key: own, properties, headers, body, timestampMs, origin }, fields };
  };
  if (each === undefined) return { one: (message) => render(message), all: null };
  const list = compileExpression(each);
  const numbered = (message: StoredMessage, value: unknown, index: number): Outgoing => {
    const { message: made, fields } = render(message, value);
    return { message: { ...made, id: numberedId(made.id, index) }, fields: { ...fields, index } };
  };
  const items = (message: StoredMessage): readonly unknown[] => itemsOf(list.evaluate(message));
  return {
    one(message) {
      const found = items(message);
      if (found.length === 0) throw new EvaluationError("each: the list is empty");
      return numbered(message, found[0], 0);
    },
    all(message) {
      const made = items(message).map((value, index) => numbered(message, value, index));
      const bytes = made.length * (made[0]?.message.body?.length ?? 0);
      if (bytes <= eachBytesMax) return made;
      throw new EvaluationError(`each: ${bytes} bytes in all, more than ${eachBytesMax}`);
    },
  };
}

function itemsOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new EvaluationError("each: expected a list");
  if (value.length <= eachItemsMax) return value;
  throw new EvaluationError(`each: a list of ${value.length}, more than ${eachItemsMax}`);
}

/** Each is a message of its own: receivers remove duplicates by the id. */
function numberedId(id: string, index: number): string {
  const numbered = `${id}.${index}`;
  if (Buffer.byteLength(numbered) <= idBytesMax) return numbered;
  return `${new Bun.CryptoHasher("sha256").update(id).digest("hex")}.${index}`;
}

/** A message that a rule passes on within the log says where it was before. */
function passedOn(message: StoredMessage): Origin {
  const before = message.origin;
  return {
    bridge: "rule",
    address: message.stream,
    partition: message.partition,
    offset: String(message.offset),
    hops: [...(before?.hops ?? []), ...cameBy(before), message.stream],
    ...(before?.params === undefined ? {} : { params: before.params }),
  };
}

/** Origins that are no places of a bridge. */
const MADE_HERE: ReadonlySet<string> = new Set(["http", "socket", "rule", "test"]);

/** The place by which a bridge brought a message; none when it was made here. */
function cameBy(origin: Origin | null): readonly string[] {
  if (origin === null || MADE_HERE.has(origin.bridge)) return [];
  return [hopOf(origin.bridge, origin.address)];
}
