/**
 * The values of expressions beside numbers: lists are arrays, maps are plain objects of which only
 * the own members are ever read, bytes are `Uint8Array`, times are `Date`.
 */
import { libraryOperator } from "./library.ts";
import { type Comparison, Double, numberOf } from "./numbers.ts";

/** A type as a value, for `type(x) == int`. */
export class TypeName {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** The types that an expression can name. `bytes` is a variable and has no name here. */
export const typeNames: ReadonlyMap<string, TypeName> = new Map(
  ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"].map(
    (name) => [name, new TypeName(name)],
  ),
);

/** A map: a plain object, of JSON or made by an expression. */
export type PlainMap = Readonly<Record<string, unknown>>;

/** Who pays for work that grows with data, so that no expression holds up the others. */
export interface Payer {
  /** @throws EvaluationError when the evaluation has used up its steps. */
  pay(steps: number): void;
}

/** Whether a value is a map. */
export function isMap(value: unknown): value is PlainMap {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** The name of a value's type, as CEL has it. */
export function typeOf(value: unknown): string {
  if (typeof value === "string") return "string";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return Number.isSafeInteger(value) ? "int" : "double";
  return typeof value === "bigint" ? "int" : typeOfObject(value);
}

function typeOfObject(value: unknown): string {
  if (value === null) return "null_type";
  if (Array.isArray(value)) return "list";
  if (value instanceof Uint8Array) return "bytes";
  if (value instanceof Double) return "double";
  if (value instanceof TypeName) return "type";
  if (value instanceof Date) return "timestamp";
  return isMap(value) ? "map" : "duration";
}

/** A value's type as errors name it. */
export function kindOf(value: unknown): string {
  const type = typeOf(value);
  if (type === "int") return "a whole number";
  if (type === "double") return "a number";
  if (type === "string") return "text";
  if (type === "bool") return value === true ? "true" : "false";
  if (type === "null_type") return "null";
  return type === "bytes" ? "bytes" : `a ${type}`;
}

/** Equality as CEL has it: numbers by value whatever their kind, other kinds never equal. */
export function equals(left: unknown, right: unknown, payer: Payer): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object") return numbersEqual(left, right);
  if (left === null || right === null) return false;
  if (Array.isArray(left)) return Array.isArray(right) && listsEqual(left, right, payer);
  if (left instanceof Uint8Array) return right instanceof Uint8Array && bytesEqual(left, right);
  if (left instanceof Date) return right instanceof Date && left.getTime() === right.getTime();
  if (isMap(left)) return isMap(right) && mapsEqual(left, right, payer);
  if (left instanceof Double) return numbersEqual(left, right);
  return typeOf(right) === "duration" && libraryOperator("==")(left, right) === true;
}

/** Order of two values of one kind; undefined when they have none. */
export function compare(operator: Comparison, left: unknown, right: unknown): unknown {
  const a = numberOf(left);
  const b = numberOf(right);
  if (a !== undefined && b !== undefined) return inOrder(operator, a, b);
  if (typeof left === "string" && typeof right === "string") return inOrder(operator, left, right);
  if (typeof left === "boolean" && typeof right === "boolean") {
    return inOrder(operator, Number(left), Number(right));
  }
  const type = typeOf(left);
  if (type !== typeOf(right) || !isTemporal(type)) return undefined;
  return libraryOperator(operator)(left, right);
}

/** Whether a type is one of the library's own: times and durations. */
export function isTemporal(type: string): boolean {
  return type === "timestamp" || type === "duration";
}

/** The text of a time (RFC 3339) or of a duration (in seconds, such as `90s`). */
export function temporalText(value: object): string {
  if (value instanceof Date) return value.toISOString();
  const duration = value as { readonly seconds: bigint; readonly nanos: number };
  const fraction = duration.nanos === 0 ? "" : (Math.abs(duration.nanos) / 1e9).toFixed(9);
  return `${duration.seconds}${fraction.slice(1).replace(/0+$/, "")}s`;
}

function inOrder<T extends number | bigint | string>(operator: Comparison, a: T, b: T): boolean {
  switch (operator) {
    case "<":
      return a < b;
    case "<=":
      return a <= b;
    case ">":
      return a > b;
    case ">=":
      return a >= b;
  }
}

function numbersEqual(left: unknown, right: unknown): boolean {
  const a = numberOf(left);
  const b = numberOf(right);
  // The loose form is exact between a bigint and a number.
  return a !== undefined && b !== undefined && a == b; // oxlint-disable-line eqeqeq
}

function bytesEqual(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

function listsEqual(left: readonly unknown[], right: readonly unknown[], payer: Payer): boolean {
  if (left.length !== right.length) return false;
  payer.pay(left.length);
  return left.every((member, index) => equals(member, right[index], payer));
}

function mapsEqual(left: PlainMap, right: PlainMap, payer: Payer): boolean {
  const names = Object.keys(left);
  if (names.length !== Object.keys(right).length) return false;
  payer.pay(names.length);
  return names.every(
    (name) => Object.hasOwn(right, name) && equals(left[name], right[name], payer),
  );
}
