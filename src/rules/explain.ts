/**
 * Says why a rule took a message or did not: the first part of its condition that said no, with
 * the values it saw, and what each target would get. The parts are evaluated anew, one by one, by
 * the same compiler that routes use.
 */
import { type ASTNode, serialize } from "@marcbachmann/cel-js";
import { InvalidError } from "../errors.ts";
import { stringifyJson } from "../json.ts";
import { explainedValueCharsMax } from "./limits.ts";
import type { StoredMessage } from "../message.ts";
import { parseTree } from "./cel/library.ts";
import type { Definition, RuleDocument } from "./document.ts";
import { compileExpression, type Verdict } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { type Rehearsal, type ShownOutgoing, shownOutgoing } from "./rehearsal.ts";

/** Why one rule took a message, or did not. */
export interface Explanation {
  readonly rule: string;
  readonly revision: number;
  readonly enabled: boolean;
  readonly verdict: Verdict;
  /** What decided: one line a part, `TEXT: VALUES is false`. Empty when there is no condition. */
  readonly because: readonly string[];
  readonly targets: readonly ExplainedTarget[];
}

/** What a target would get. */
export interface ExplainedTarget {
  readonly target: string;
  readonly outgoing: ShownOutgoing | null;
  readonly refused: string | null;
}

/** Explains one rule's work on a message. */
export function explainRule(
  definition: Definition<RuleDocument>,
  rehearsal: Rehearsal,
  message: StoredMessage,
): Explanation {
  const { name, revision, parsed } = definition;
  const { verdict, targets } = rehearsal.run(message);
  return {
    rule: name,
    revision,
    enabled: parsed.enabled,
    verdict,
    because: parsed.where === null ? [] : explainCondition(parsed.where, message),
    targets: targets.map((outcome) => {
      const { target, refused } = outcome;
      return { target, refused, outgoing: shownOutgoing(outcome, true) };
    }),
  };
}

/** The parts of a condition that decided, each as one line. @throws InvalidError it is none. */
export function explainCondition(source: string, message: StoredMessage): readonly string[] {
  return new Explainer(message).parts(parseTree(source).ast);
}

type Value = { readonly value: unknown } | { readonly failed: string };

class Explainer {
  readonly #message: StoredMessage;

  constructor(message: StoredMessage) {
    this.#message = message;
  }

  /** `&&` is decided by the side that said no, `||` by the one that said yes, or by both. */
  parts(node: ASTNode): readonly string[] {
    if (node.op === "!_") return this.#negated(node);
    if (node.op === "?:") {
      const [condition, yes, no] = node.args;
      const chosen = this.#value(condition);
      if (!("value" in chosen) || typeof chosen.value !== "boolean") return this.parts(condition);
      return [...this.parts(condition), ...this.parts(chosen.value ? yes : no)];
    }
    if (node.op !== "&&" && node.op !== "||") return [this.#line(node)];
    const [left, right] = node.args;
    const ending = node.op === "||";
    for (const side of [left, right]) {
      const found = this.#value(side);
      if ("value" in found && found.value === ending) return this.parts(side);
    }
    // Neither side decides alone: a failure tells more than what was as it had to be.
    const failing = [left, right].find((side) => "failed" in this.#value(side));
    if (failing !== undefined) return this.parts(failing);
    return [...this.parts(left), ...this.parts(right)];
  }

  #negated(node: Extract<ASTNode, { readonly op: "!_" }>): readonly string[] {
    const inner = node.args;
    const isSimple = inner.op !== "&&" && inner.op !== "||" && inner.op !== "!_";
    return isSimple ? [this.#line(node)] : this.parts(inner).map((line) => `not: ${line}`);
  }

  /** `body.amount > 100: 42 > 100 is false` */
  #line(node: ASTNode): string {
    const text = shortened(serialize(node));
    const result = this.#value(node);
    const values = this.#withValues(node);
    const shown = values === null ? "" : `${values} `;
    if ("failed" in result) return `${text}: ${shown}failed: ${result.failed}`;
    if (typeof result.value === "boolean") return `${text}: ${shown}is ${result.value}`;
    return `${text}: is ${shownValue(result)}, which is neither true nor false`;
  }

  /** The node with what its operands came to; null when that says no more than its text. */
  #withValues(node: ASTNode): string | null {
    if (node.op === "!_") return null;
    if (isComparison(node)) {
      const [left, right] = node.args as readonly [ASTNode, ASTNode];
      return `${this.#shown(left)} ${node.op} ${this.#shown(right)}`;
    }
    if (node.op === "rcall") {
      const [name, receiver, args] = node.args;
      if (isMacro(name)) return `for ${this.#shown(receiver)}`;
      return `${this.#shown(receiver)}.${name}(${args.map((each) => this.#shown(each)).join(", ")})`;
    }
    return null;
  }

  #shown(node: ASTNode): string {
    if (node.op === "value") return shortened(serialize(node));
    return shownValue(this.#value(node));
  }

  #value(node: ASTNode): Value {
    const text = serialize(node);
    try {
      const expression = compileExpression(text);
      return { value: expression.evaluate(this.#message) };
    } catch (cause) {
      if (cause instanceof EvaluationError) {
        return { failed: cause.message.replace(` (in ${text})`, "") };
      }
      if (cause instanceof InvalidError) return { failed: cause.message };
      throw cause;
    }
  }
}

const COMPARISONS: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">=", "in"]);
const MACROS: ReadonlySet<string> = new Set("all exists exists_one map filter bind".split(" "));

function isComparison(node: ASTNode): boolean {
  return COMPARISONS.has(node.op);
}

function isMacro(name: string): boolean {
  return MACROS.has(name);
}

function shownValue(value: Value): string {
  if ("failed" in value) return `(${value.failed})`;
  if (!(value.value instanceof Uint8Array)) return shortened(stringifyJson(value.value));
  return shortened(`base64 ${Buffer.from(value.value).toString("base64")}`);
}

function shortened(text: string): string {
  return text.length <= explainedValueCharsMax ? text : `${text.slice(0, explainedValueCharsMax)}…`;
}
