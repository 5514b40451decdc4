/**
 * Conditions that several rules or targets share: equal texts are one expression, and what it says
 * of a message is remembered for as long as the message is. So a condition is evaluated once a
 * message, however many routes ask, as long as they are handed the same message.
 */
import { conditionsMax } from "./limits.ts";
import type { StoredMessage } from "../message.ts";
import { compileExpression, type Expression, type Verdict } from "./expression.ts";

/** A condition. Testing is synchronous and changes nothing that can be seen. */
export class Condition {
  readonly expression: Expression;
  readonly #verdicts = new WeakMap<StoredMessage, Verdict>();
  /** How many targets of which rule ask. */
  readonly #askers = new Map<string, number>();
  #isShared = false;

  constructor(expression: Expression) {
    this.expression = expression;
  }

  /** Says that so many targets of a rule will ask: one alone pays nothing for remembering. */
  register(rule: string, targets: number): void {
    this.#askers.set(rule, targets);
    const all = [...this.#askers.values()].reduce((sum, each) => sum + each, 0);
    this.#isShared = all > 1;
  }

  /** What it says of a message; never throws for the message's sake. */
  test(message: StoredMessage): Verdict {
    if (!this.#isShared) return this.expression.test(message);
    let verdict = this.#verdicts.get(message);
    if (verdict === undefined) {
      verdict = this.expression.test(message);
      this.#verdicts.set(message, verdict);
    }
    return verdict;
  }
}

const conditions = new Map<string, Condition>();

/**
 * The condition of a text, for one rule's targets. @throws InvalidError it does not compile, with
 * line and column.
 */
export function conditionOf(source: string, rule: string, targets: number): Condition {
  let condition = conditions.get(source);
  if (condition === undefined) {
    condition = new Condition(compileExpression(source, { condition: true }));
    const oldest = conditions.keys().next();
    // One that is let go goes on for those who have it; only later ones don't share it.
    if (conditions.size >= conditionsMax && oldest.done !== true) conditions.delete(oldest.value);
    conditions.set(source, condition);
  }
  condition.register(rule, targets);
  return condition;
}
