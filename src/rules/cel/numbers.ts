/**
 * The numbers of expressions. Whole numbers are JS numbers within ±2^53 and `bigint` outside, so
 * they are exact at any size; every other number is a double. A double that happens to be whole
 * is wrapped in `Double`, so that `5.0 / 2` is not taken for whole numbers; the wrapper never
 * leaves the evaluator. Whole numbers stay whole under arithmetic; with a double on one side both
 * are doubles.
 */
import { wholeNumberBitsMax } from "../limits.ts";
import { Failure } from "../failure.ts";

/** A double whose value is whole and within ±2^53. */
export class Double {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

export type Arithmetic = "+" | "-" | "*" | "/" | "%";
export type Comparison = "<" | "<=" | ">" | ">=";

const wholeMax = 1n << BigInt(wholeNumberBitsMax);
const wholeTooLarge = new Failure(`a whole number has more than ${wholeNumberBitsMax} bits`);
const notFinite = new Failure("the result is not a finite number");
const divisionByZero = new Failure("division by zero");
const remainderOfDouble = new Failure("% needs whole numbers");

/** A whole number as an expression holds it. */
export function isWhole(value: unknown): value is number | bigint {
  return typeof value === "number" ? Number.isSafeInteger(value) : typeof value === "bigint";
}

/** The number behind a value of either kind; undefined when it isn't one. */
export function numberOf(value: unknown): number | bigint | undefined {
  if (typeof value === "number" || typeof value === "bigint") return value;
  return value instanceof Double ? value.value : undefined;
}

/** A whole number in its one form. */
export function whole(value: bigint): number | bigint | Failure {
  if (value > wholeMax || value < -wholeMax) return wholeTooLarge;
  const small = Number(value);
  return Number.isSafeInteger(small) ? small : value;
}

/** The result of arithmetic with doubles. What JSON can't hold is a failure. */
export function double(value: number): number | Double | Failure {
  if (!Number.isFinite(value)) return notFinite;
  return Number.isSafeInteger(value) ? new Double(value) : value;
}

/** One operation on two numbers; undefined when one of them isn't a number. */
export function calculate(operator: Arithmetic, left: unknown, right: unknown): unknown {
  const a = numberOf(left);
  const b = numberOf(right);
  if (a === undefined || b === undefined) return undefined;
  if (!isWhole(left) || !isWhole(right)) {
    return operator === "%" ? remainderOfDouble : double(onDoubles(operator, Number(a), Number(b)));
  }
  if (typeof left === "number" && typeof right === "number") {
    const result = onSmall(operator, left, right);
    if (result instanceof Failure || Number.isSafeInteger(result)) return result;
  }
  return onLarge(operator, BigInt(a), BigInt(b));
}

/** The negative of a number; undefined when it isn't one. */
export function negate(value: unknown): unknown {
  if (isWhole(value)) return typeof value === "bigint" ? whole(-value) : 0 - value;
  const number = numberOf(value);
  return number === undefined ? undefined : double(-Number(number));
}

function onDoubles(operator: Exclude<Arithmetic, "%">, a: number, b: number): number {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return a / b;
  }
}

/** The result is exact when it is a safe integer; otherwise the caller takes the long way. */
function onSmall(operator: Arithmetic, a: number, b: number): number | Failure {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      // Adding 0 turns a negative zero into the one zero that whole numbers have.
      return a * b + 0;
    case "/":
      // Not trunc(a / b): near 2^53 the quotient may round up to the next whole number.
      return b === 0 ? divisionByZero : (a - (a % b)) / b + 0;
    case "%":
      return b === 0 ? divisionByZero : (a % b) + 0;
  }
}

function onLarge(operator: Arithmetic, a: bigint, b: bigint): number | bigint | Failure {
  switch (operator) {
    case "+":
      return whole(a + b);
    case "-":
      return whole(a - b);
    case "*":
      return whole(a * b);
    case "/":
      return b === 0n ? divisionByZero : whole(a / b);
    case "%":
      return b === 0n ? divisionByZero : whole(a % b);
  }
}
