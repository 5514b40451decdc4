/**
 * Macros: `has`, `all`, `exists`, `exists_one`, `map`, `filter` and `cel.bind`. Each turn of a
 * loop pays for its body, so that nested macros over long lists end instead of holding up all.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { Failure } from "../failure.ts";
import type { Compiling, Evaluation, Inner, Run } from "./evaluation.ts";
import { isMap, kindOf } from "./values.ts";

/** What a loop does with each item; true ends it. */
type Loop = (evaluation: Evaluation, items: readonly unknown[], inner: Inner) => unknown;

const loops: ReadonlyMap<string, Loop> = new Map<string, Loop>([
  ["all/2", (evaluation, items, inner) => quantify(evaluation, items, inner, false)],
  ["exists/2", (evaluation, items, inner) => quantify(evaluation, items, inner, true)],
  ["exists_one/2", existsOne],
  ["map/2", mapItems],
  ["map/3", mapSome],
  ["filter/2", filterItems],
]);

/** Every macro's name, for suggestions. */
export const macroNames: ReadonlySet<string> = new Set([
  "has",
  ...[...loops.keys()].map((form) => form.replace(/\/\d$/, "")),
]);

/** Compiles `receiver.name(args)` when it is a macro; null when it isn't. */
export function compileMacro(
  compiling: Compiling,
  name: string,
  receiver: ASTNode,
  args: readonly ASTNode[],
): Run | null {
  const [variable, ...parts] = args;
  if (variable === undefined) return null;
  if (name === "bind" && receiver.op === "id" && receiver.args === "cel" && args.length === 3) {
    return compileBind(compiling, variable, parts);
  }
  const loop = loops.get(`${name}/${args.length}`);
  if (loop === undefined) return null;
  const list = compiling.compile(receiver);
  const inner = compiling.compileInner(nameOf(compiling, variable), parts);
  return (evaluation) => {
    const items = itemsOf(list(evaluation));
    return items instanceof Failure ? items : loop(evaluation, items, inner);
  };
}

/** Compiles `has(a.b)`: whether the map `a` has a member `b`. */
export function compileHas(compiling: Compiling, node: ASTNode, argument: ASTNode): Run {
  if (argument.op !== ".") compiling.refuse(node, "has needs a field, such as has(body.amount)");
  const [target, name] = argument.args;
  const run = compiling.compile(target);
  return (evaluation) => {
    const value = run(evaluation);
    if (value instanceof Failure) return value;
    return isMap(value) && Object.hasOwn(value, name) && value[name] !== undefined;
  };
}

function compileBind(compiling: Compiling, variable: ASTNode, parts: readonly ASTNode[]): Run {
  const [bound, body] = parts as [ASTNode, ASTNode];
  const value = compiling.compile(bound);
  const inner = compiling.compileInner(nameOf(compiling, variable), [body]);
  const run = firstOf(inner);
  return (evaluation) => {
    const result = value(evaluation);
    if (result instanceof Failure) return result;
    evaluation.locals[inner.slot] = result;
    return run(evaluation);
  };
}

function nameOf(compiling: Compiling, node: ASTNode): string {
  if (node.op !== "id") compiling.refuse(node, "expected the name of a variable");
  return node.args;
}

function firstOf(inner: Inner): Run {
  return inner.runs[0] as Run;
}

function itemsOf(value: unknown): readonly unknown[] | Failure {
  if (Array.isArray(value)) return value;
  if (isMap(value)) return Object.keys(value);
  return value instanceof Failure ? value : new Failure(`${kindOf(value)} has no items`);
}

/** `exists` ends at the first true, `all` at the first false; failures count only without one. */
function quantify(
  evaluation: Evaluation,
  items: readonly unknown[],
  inner: Inner,
  ending: boolean,
): unknown {
  const test = firstOf(inner);
  let failure: Failure | null = null;
  for (const item of items) {
    evaluation.pay(inner.cost);
    evaluation.locals[inner.slot] = item;
    const result = test(evaluation);
    if (result === ending) return ending;
    if (result !== !ending) failure ??= notCondition(result);
  }
  return failure ?? !ending;
}

function existsOne(evaluation: Evaluation, items: readonly unknown[], inner: Inner): unknown {
  const found = filterItems(evaluation, items, inner);
  return Array.isArray(found) ? found.length === 1 : found;
}

function filterItems(evaluation: Evaluation, items: readonly unknown[], inner: Inner): unknown {
  const test = firstOf(inner);
  const kept: unknown[] = [];
  evaluation.made = true;
  for (const item of items) {
    evaluation.pay(inner.cost);
    evaluation.locals[inner.slot] = item;
    const result = test(evaluation);
    if (result === true) kept.push(item);
    else if (result !== false) return notCondition(result);
  }
  return kept;
}

function mapItems(evaluation: Evaluation, items: readonly unknown[], inner: Inner): unknown {
  const change = firstOf(inner);
  const changed: unknown[] = [];
  evaluation.made = true;
  for (const item of items) {
    evaluation.pay(inner.cost);
    evaluation.locals[inner.slot] = item;
    const result = change(evaluation);
    if (result instanceof Failure) return result;
    changed.push(result);
  }
  return changed;
}

function mapSome(evaluation: Evaluation, items: readonly unknown[], inner: Inner): unknown {
  const [test, change] = inner.runs as readonly [Run, Run];
  const kept = filterItems(evaluation, items, { ...inner, runs: [test] });
  if (!Array.isArray(kept)) return kept;
  return mapItems(evaluation, kept, { ...inner, runs: [change] });
}

function notCondition(result: unknown): Failure {
  if (result instanceof Failure) return result;
  return new Failure(`expected true or false, got ${kindOf(result)}`);
}
