/**
 * The CEL library: parser, type checker and its functions. Evaluation is ours (`compile.ts`), for
 * it must mix numbers, count steps and keep failures cheap; what ours does not know of the
 * standard functions and of times is called here, one operation at a time.
 */
import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import { errorText } from "../../errors.ts";
import { expressionDepthMax, expressionNodesMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import { Double, double, whole } from "./numbers.ts";

/** The name under which the type checker knows the variable `bytes`, which is a type's in CEL. */
export const BYTES_ALIAS = "body_bytes";

/** Calls one operation of the library with values of ours. */
export type LibraryCall = (...values: unknown[]) => unknown;

/** What the type checker found. */
export interface Checked {
  readonly valid: boolean;
  readonly type?: string;
  readonly error?: unknown;
}

/** Functions of the library that are not called: ours are there, or what they need is not. */
const EXCLUDED: ReadonlySet<string> = new Set(
  "matches json of none ofNonZeroValue hasValue value or orValue".split(" "),
);

/** The functions of `added-functions.ts`, as the type checker knows them. */
const addedSignatures: readonly string[] = [
  "json(dyn): string",
  "jsonDecode(dyn): dyn",
  "base64(dyn): string",
  "base64Decode(string): bytes",
  "hex(dyn): string",
  "hexDecode(string): bytes",
  "sha256(dyn): string",
  "hmac(dyn, dyn): string",
  "hmac(string, dyn, dyn): string",
  "uuid(): string",
  "fromMillis(int): google.protobuf.Timestamp",
  "toMillis(google.protobuf.Timestamp): int",
  "google.protobuf.Timestamp.format(string): string",
  "google.protobuf.Timestamp.format(string, string): string",
  "string.replace(string, string): string",
  "string.replace(string, string, int): string",
  "string.charAt(int): string",
  "string.reverse(): string",
];

const limits = { maxAstNodes: expressionNodesMax, maxDepth: expressionDepthMax };
const checker = makeChecker();
const caller = new Environment({
  unlistedVariablesAreDyn: true,
  homogeneousAggregateLiterals: false,
});
const operators = new Map<string, LibraryCall>();

/** The tree of an expression. @throws the library's ParseError */
export function parseTree(source: string): { readonly ast: ASTNode; check(): Checked } {
  return checker.parse(source);
}

/** How a function is called, as text: `size/1`, or `.split/2` for a method with one argument. */
export function callForm(name: string, count: number, method: boolean): string {
  return `${method ? "." : ""}${name}/${count}`;
}

/** The forms in which the library's functions can be called. */
export const libraryForms: ReadonlySet<string> = new Set(
  caller
    .getDefinitions()
    .functions.filter((each) => !each.params.some((param) => param.type === "ast"))
    .filter((each) => !EXCLUDED.has(each.name))
    .map((each) => {
      const method = each.receiverType !== null;
      return callForm(each.name, each.params.length + (method ? 1 : 0), method);
    }),
);

/** An operator of the library, for times and durations. */
export function libraryOperator(operator: string): LibraryCall {
  let call = operators.get(operator);
  if (call === undefined) {
    call = program(`a0 ${operator} a1`);
    operators.set(operator, call);
  }
  return call;
}

/** A function of the library; the receiver of a method is the first value. */
export function libraryFunction(name: string, count: number, method: boolean): LibraryCall {
  const names = Array.from({ length: count }, (_, index) => `a${index}`);
  return program(
    method ? `a0.${name}(${names.slice(1).join(", ")})` : `${name}(${names.join(", ")})`,
  );
}

function makeChecker(): Environment {
  const environment = new Environment({ homogeneousAggregateLiterals: false, limits });
  for (const name of [
    "body",
    "text",
    BYTES_ALIAS,
    "key",
    "properties",
    "origin",
    "item",
    "claims",
  ]) {
    environment.registerVariable(name, "dyn");
  }
  for (const name of ["id", "stream"]) environment.registerVariable(name, "string");
  for (const name of ["timestamp", "partition", "offset"])
    environment.registerVariable(name, "int");
  environment.registerVariable("headers", "map<string, dyn>");
  environment.registerVariable("params", "map<string, string>");
  environment.registerFunction("header(string): string", neverRun);
  environment.registerFunction("raw(dyn): dyn", neverRun);
  environment.registerVariable("now", "google.protobuf.Timestamp");
  for (const signature of addedSignatures) environment.registerFunction(signature, neverRun);
  for (const type of ["google.protobuf.Timestamp", "google.protobuf.Duration"]) {
    environment.registerFunction(`string(${type}): string`, neverRun);
  }
  environment.registerFunction("int(google.protobuf.Timestamp): int", neverRun);
  for (const operator of ["+", "-", "*", "/"]) {
    environment.registerOperator(`int ${operator} double: double`, neverRun);
    environment.registerOperator(`double ${operator} int: double`, neverRun);
  }
  // Registers the other direction too.
  environment.registerOperator("int == double: bool", neverRun);
  environment.registerOperator("int in list<double>: bool", neverRun);
  environment.registerOperator("double in list<int>: bool", neverRun);
  return environment;
}

/** The checker only looks at signatures. */
function neverRun(): never {
  throw new Error("a function of the type checker was called");
}

function program(text: string): LibraryCall {
  const run = caller.parse(text);
  return (...values) => {
    const context: Record<string, unknown> = {};
    for (const [index, value] of values.entries()) context[`a${index}`] = toLibrary(value);
    try {
      return fromLibrary(run(context));
    } catch (cause) {
      const summary = (cause as { readonly summary?: unknown }).summary;
      return new Failure(typeof summary === "string" ? summary : errorText(cause));
    }
  };
}

function toLibrary(value: unknown): unknown {
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (value instanceof Double) return value.value;
  return Array.isArray(value) ? value.map(toLibrary) : value;
}

function fromLibrary(value: unknown): unknown {
  if (typeof value === "bigint") return whole(value);
  if (typeof value === "number") return double(value);
  return Array.isArray(value) ? value.map(fromLibrary) : value;
}
