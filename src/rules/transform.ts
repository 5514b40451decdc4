/**
 * A rule in running form: which messages it takes (`where`), what it makes of them (`set`) and
 * where that goes (`to`). Pure: the same message always gives the same result, so a retry or a
 * replay sends what the first attempt sent.
 */
import type { BridgeModule, Outgoing } from "../bridge.ts";
import { asEvent } from "../cloudevents/write.ts";
import { NotFoundError } from "../errors.ts";
import type { Message, StoredMessage } from "../message.ts";
import { compileAddress } from "./address.ts";
import { type Change, compileSet } from "./set.ts";
import type { RuleDocument, TargetDocument } from "./document.ts";
import { conditionOf } from "./conditions.ts";
import type { Verdict } from "./expression.ts";
import { compileFanOut } from "./fan-out.ts";
import { compileNotBefore, type NotBefore } from "./not-before.ts";

/** A rule that can be run over messages, by any number of routes. */
export interface CompiledRule {
  readonly name: string;
  readonly document: RuleDocument;
  /** Whether the rule takes a message. `failed`: `where` failed; count it and take it as no. */
  matches(message: StoredMessage): Verdict;
  /** In the order of the document. */
  readonly targets: readonly CompiledTarget[];
}

/** One target of a rule. */
export interface CompiledTarget {
  readonly name: string;
  readonly document: TargetDocument;
  /**
   * The message as this target gets it, with its address. The id stays: receivers remove
   * duplicates by it. For a stream target the fields are `{ stream }`.
   * @throws EvaluationError `set` or the address failed: a failure of this message, for good.
   */
  render(message: StoredMessage): Outgoing;
  /**
   * With `each` all that a message becomes, perhaps nothing; null: `render` gives it. They are
   * sent together, and the message is finished when all of them are. @throws EvaluationError
   */
  readonly renderAll: ((message: StoredMessage) => readonly Outgoing[]) | null;
  /**
   * When it may go out at the earliest, Unix milliseconds; 0: at once.
   * @throws EvaluationError as `render` does.
   */
  readonly notBeforeMs: NotBefore;
}

/**
 * Compiles a parsed rule. `modules` holds the bridges' modules by kind.
 * @throws InvalidError an expression is wrong (parsing would have refused it).
 * @throws NotFoundError no module for a target's kind.
 */
export function compileRule(
  name: string,
  document: RuleDocument,
  modules: ReadonlyMap<string, BridgeModule>,
): CompiledRule {
  const where =
    document.where === null ? null : conditionOf(document.where, name, document.to.length);
  const change = shared(compileSet(document.set, name), document.to.length);
  return {
    name,
    document,
    matches: (message) => (where === null ? "yes" : where.test(message)),
    targets: document.to.map((target) => compileTarget(target, change, modules)),
  };
}

function compileTarget(
  document: TargetDocument,
  change: Change,
  modules: ReadonlyMap<string, BridgeModule>,
): CompiledTarget {
  const { name, to } = document;
  const notBeforeMs = compileNotBefore(document);
  if ("stream" in to) {
    const { one, all } = compileFanOut({ ...document, to }, change);
    return { name, document, render: one, renderAll: all, notBeforeMs };
  }
  const module = modules.get(to.kind);
  if (module === undefined) throw new NotFoundError(`no bridge of kind ${to.kind} is known`);
  const address = compileAddress(to.fields, module.addressSpecials, name);
  const format = compileFormat(document, module);
  return {
    name,
    document,
    notBeforeMs,
    renderAll: null,
    render: (message) => ({
      message: format(change(message), message.stream),
      fields: address.render(message),
    }),
  };
}

/** What `format` makes of a changed message. */
function compileFormat(
  { format, batch }: TargetDocument,
  { kind, events: binding }: BridgeModule,
): (message: Message, stream: string) => Message {
  // A batch of events is a list of whole events.
  const mode = format !== undefined && batch?.as !== undefined ? "structured" : format;
  if (mode === undefined) return (message) => message;
  if (binding === undefined) throw new NotFoundError(`a bridge of kind ${kind} takes no format`);
  return (message, stream) => asEvent(message, { mode, binding, stream });
}

/** Routes of one rule see the same message objects at the log's end: the change is made once. */
function shared(change: Change | null, targets: number): Change {
  if (change === null) return (message) => message;
  if (targets < 2) return change;
  const results = new WeakMap<StoredMessage, Message>();
  return (message) => {
    let result = results.get(message);
    if (result === undefined) {
      result = change(message);
      results.set(message, result);
    }
    return result;
  };
}
