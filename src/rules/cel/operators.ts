/**
 * Operators as closures. The usual comparison, a field with a literal, is one property read and
 * one comparison; everything else takes the general way with the same meaning. `&&` and `||` have
 * CEL's meaning: a failure on one side does not matter when the other side decides.
 */
import { expressionTextMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import type { Evaluation, Run } from "./evaluation.ts";
import { libraryOperator } from "./library.ts";
import {
  type Arithmetic,
  type Comparison,
  calculate,
  isWhole,
  negate,
  numberOf,
} from "./numbers.ts";
import { compare, equals, isMap, isTemporal, kindOf, typeOf } from "./values.ts";

/** Bytes or characters that cost a step when they are copied. */
const COPIED_PER_STEP = 64;

const textTooLong = new Failure(`a text has more than ${expressionTextMax} characters`);

/** `left == right`, or its opposite. */
export function equality(left: Run, right: Run, positive: boolean): Run {
  return (evaluation) => {
    const a = left(evaluation);
    if (a instanceof Failure) return a;
    const b = right(evaluation);
    if (b instanceof Failure) return b;
    return equals(a, b, evaluation) === positive;
  };
}

/** `left == literal`, where the literal is text, a boolean, null or a small whole number. */
export function literalEquality(left: Run, literal: unknown, positive: boolean): Run {
  const kind = typeof literal;
  return (evaluation) => {
    const value = left(evaluation);
    if (value === literal) return positive;
    if (typeof value === kind && kind !== "object") return !positive;
    return value instanceof Failure ? value : equals(value, literal, evaluation) === positive;
  };
}

/** `<`, `<=`, `>` and `>=`. */
export function comparison(operator: Comparison, left: Run, right: Run): Run {
  return (evaluation) => {
    const a = left(evaluation);
    const b = right(evaluation);
    return compared(operator, a, b);
  };
}

/** A comparison with a literal number. */
export function literalComparison(operator: Comparison, left: Run, literal: number): Run {
  switch (operator) {
    case "<":
      return (evaluation) => {
        const value = left(evaluation);
        return typeof value === "number" ? value < literal : compared(operator, value, literal);
      };
    case "<=":
      return (evaluation) => {
        const value = left(evaluation);
        return typeof value === "number" ? value <= literal : compared(operator, value, literal);
      };
    case ">":
      return (evaluation) => {
        const value = left(evaluation);
        return typeof value === "number" ? value > literal : compared(operator, value, literal);
      };
    case ">=":
      return (evaluation) => {
        const value = left(evaluation);
        return typeof value === "number" ? value >= literal : compared(operator, value, literal);
      };
  }
}

/** `+`, `-`, `*`, `/` and `%`; `+` also joins texts, bytes and lists. */
export function arithmetic(operator: Arithmetic, left: Run, right: Run): Run {
  return (evaluation) => {
    const a = left(evaluation);
    if (a instanceof Failure) return a;
    const b = right(evaluation);
    if (b instanceof Failure) return b;
    const number = calculate(operator, a, b);
    if (number !== undefined) return number;
    const joined = operator === "+" ? join(evaluation, a, b) : undefined;
    if (joined !== undefined) return joined;
    if (isTemporal(typeOf(a)) || isTemporal(typeOf(b))) return libraryOperator(operator)(a, b);
    return undefinedFor(operator, a, b);
  };
}

/** `left in right`: a member of a list, a name of a map. */
export function membership(left: Run, right: Run): Run {
  return (evaluation) => {
    const value = left(evaluation);
    if (value instanceof Failure) return value;
    const container = right(evaluation);
    if (container instanceof Failure) return container;
    if (isMap(container)) {
      const name = memberName(value);
      return name !== null && Object.hasOwn(container, name) && container[name] !== undefined;
    }
    if (!Array.isArray(container)) return undefinedFor("in", value, container);
    evaluation.pay(container.length);
    return container.some((member) => equals(value, member, evaluation));
  };
}

/** `&&` when `ending` is false, `||` when it is true: the value that decides alone. */
export function logical(left: Run, right: Run, ending: boolean): Run {
  return (evaluation) => {
    const a = left(evaluation);
    if (a === ending) return ending;
    const b = right(evaluation);
    if (b === ending) return ending;
    if (a !== !ending) return notCondition(a);
    return b === !ending ? b : notCondition(b);
  };
}

/** `!x` */
export function not(run: Run): Run {
  return (evaluation) => {
    const value = run(evaluation);
    return typeof value === "boolean" ? !value : notCondition(value);
  };
}

/** `-x` */
export function minus(run: Run): Run {
  return (evaluation) => {
    const value = run(evaluation);
    if (value instanceof Failure) return value;
    return negate(value) ?? new Failure(`- is not defined for ${kindOf(value)}`);
  };
}

/** `condition ? yes : no` */
export function choice(condition: Run, yes: Run, no: Run): Run {
  return (evaluation) => {
    const value = condition(evaluation);
    if (value === true) return yes(evaluation);
    return value === false ? no(evaluation) : notCondition(value);
  };
}

/** `target.name` */
export function field(target: Run, name: string): Run {
  const missing = new Failure(`no such field: ${name}`);
  // A name that every object inherits needs a look at whose it is; others can't be inherited.
  const inherited = name in Object.prototype;
  return (evaluation) => {
    const value = target(evaluation);
    if (isMap(value)) {
      if (inherited && !Object.hasOwn(value, name)) return missing;
      const member = value[name];
      return member === undefined ? missing : member;
    }
    if (value instanceof Failure) return value;
    return new Failure(`${kindOf(value)} has no field ${name}`);
  };
}

/** `target[key]`: a whole number for lists; text, a whole number or a boolean for maps. */
export function element(target: Run, key: Run): Run {
  return (evaluation) => {
    const value = target(evaluation);
    if (value instanceof Failure) return value;
    const wanted = key(evaluation);
    if (wanted instanceof Failure) return wanted;
    if (Array.isArray(value)) return listElement(value, wanted);
    const name = memberName(wanted);
    if (!isMap(value) || name === null) {
      return new Failure(`${kindOf(value)} has no element ${kindOf(wanted)}`);
    }
    const member = Object.hasOwn(value, name) ? value[name] : undefined;
    return member === undefined ? new Failure(`no such key: ${name}`) : member;
  };
}

/** The name under which a map holds a key; null when the value can't be a key. */
export function memberName(value: unknown): string | null {
  if (typeof value === "string") return value;
  return isWhole(value) || typeof value === "boolean" ? String(value) : null;
}

function listElement(list: readonly unknown[], index: unknown): unknown {
  if (typeof index !== "number" || !Number.isSafeInteger(index)) {
    return new Failure(`a list's index is a whole number, not ${kindOf(index)}`);
  }
  const member = list[index];
  return member === undefined
    ? new Failure(`no element ${index} in a list of ${list.length}`)
    : member;
}

function compared(operator: Comparison, a: unknown, b: unknown): unknown {
  if (a instanceof Failure) return a;
  if (b instanceof Failure) return b;
  return compare(operator, a, b) ?? undefinedFor(operator, a, b);
}

function join(evaluation: Evaluation, a: unknown, b: unknown): unknown {
  if (typeof a === "string" && typeof b === "string") {
    const length = a.length + b.length;
    evaluation.pay(length / COPIED_PER_STEP);
    return length > expressionTextMax ? textTooLong : a + b;
  }
  if (a instanceof Uint8Array && b instanceof Uint8Array) {
    const length = a.length + b.length;
    evaluation.pay(length / COPIED_PER_STEP);
    return length > expressionTextMax ? textTooLong : Buffer.concat([a, b]);
  }
  if (!Array.isArray(a) || !Array.isArray(b)) return undefined;
  evaluation.pay(a.length + b.length);
  evaluation.made = true;
  return [...(a as unknown[]), ...(b as unknown[])];
}

function undefinedFor(operator: string, a: unknown, b: unknown): Failure {
  return new Failure(`${operator} is not defined for ${kindOf(a)} and ${kindOf(b)}`);
}

function notCondition(value: unknown): Failure {
  if (value instanceof Failure) return value;
  return new Failure(`expected true or false, got ${kindOf(value)}`);
}

/** A literal that `literalComparison` takes: any number but a bigint. */
export function plainNumber(value: unknown): number | null {
  const number = numberOf(value);
  return typeof number === "number" ? number : null;
}
