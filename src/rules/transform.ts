/**
 * A rule in running form: which messages it takes (`where`), what it makes of them (`set`) and
 * where that goes (`to`). Pure: the same message always gives the same result, so a retry or a
 * replay sends what the first attempt sent.
 */
import type { BridgeModule, Outgoing } from "../bridge.ts";
import { NotFoundError } from "../errors.ts";
import type { Message, Origin, StoredMessage } from "../message.ts";
import { type AddressTemplate, compileAddress } from "./address.ts";
import { type Change, compileSet } from "./set.ts";
import type { RuleDocument, TargetDocument } from "./document.ts";
import { compileExpression, type Verdict } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { isName } from "./units.ts";

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
    document.where === null ? null : compileExpression(document.where, { condition: true });
  const change = shared(compileSet(document.set), document.to.length);
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
  if ("stream" in to) {
    const address = compileAddress({ stream: to.stream }, { stream: "" });
    return { name, document, render: (message) => intoStream(message, change, address) };
  }
  const module = modules.get(to.kind);
  if (module === undefined) throw new NotFoundError(`no bridge of kind ${to.kind} is known`);
  const address = compileAddress(to.fields, module.addressSpecials);
  return {
    name,
    document,
    render: (message) => ({ message: change(message), fields: address.render(message) }),
  };
}

/** A message that a rule passes on within the log says where it was before. */
function intoStream(message: StoredMessage, change: Change, address: AddressTemplate): Outgoing {
  const fields = address.render(message);
  const stream = fields["stream"];
  if (typeof stream !== "string" || !isName(stream)) {
    throw new EvaluationError(`stream: ${JSON.stringify(stream)} is not a stream's name`);
  }
  const changed = change(message);
  const { id, key, properties, headers, body, timestampMs } = changed;
  const origin = passedOn(message);
  return { message: { id, key, properties, headers, body, timestampMs, origin }, fields };
}

function passedOn(message: StoredMessage): Origin {
  const before = message.origin;
  return {
    bridge: "rule",
    address: message.stream,
    partition: message.partition,
    offset: String(message.offset),
    hops: [...(before?.hops ?? []), message.stream],
    ...(before?.params === undefined ? {} : { params: before.params }),
  };
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
