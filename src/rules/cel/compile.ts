/**
 * Compiles an expression's text into closures. The library parses and checks types; the closures
 * are ours, for numbers mix, steps are counted and failures are values (see `evaluation.ts`).
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { expressionCharsMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import { didYouMean } from "../suggest.ts";
import { type Compiling, type Evaluation, type Inner, Raw, type Run } from "./evaluation.ts";
import { compileCall, functionNames } from "./functions.ts";
import { BYTES_ALIAS, parseTree } from "./library.ts";
import { compileHas, compileMacro, macroNames } from "./macros.ts";
import { type Arithmetic, type Comparison, Double, whole } from "./numbers.ts";
import * as operators from "./operators.ts";
import { expressionError, fromLibraryError, isAllowed } from "./problem.ts";
import { typeNames } from "./values.ts";
import { BODY_VARIABLES, headerField, STORED_VARIABLES, variables } from "./variables.ts";

/** What an expression may use and must give. */
export interface CompileOptions {
  /** `${item}` of `each`: only where there is one. */
  readonly item?: boolean;
  /** `claims` of a caller, which stand in the place of `item`: only for grants. */
  readonly claims?: boolean;
  /** False for what runs before the message is stored: no stream, partition and offset. */
  readonly stored?: boolean;
  /** It must give true or false. */
  readonly condition?: boolean;
  /** Where it stands, such as a rule and a field: equal texts at two places are told apart by it. */
  readonly site?: string;
}

/** A compiled expression. */
export interface Compiled {
  readonly run: Run;
  /** It looks at `body`, `text` or `bytes`. */
  readonly needsBody: boolean;
}

/** @throws InvalidError with line, column and what was expected. */
export function compileSource(source: string, options: CompileOptions): Compiled {
  if (source.trim() === "")
    throw expressionError(source, 0, "expected an expression, found nothing");
  if (source.length > expressionCharsMax) {
    const detail = `expected at most ${expressionCharsMax} characters, found ${source.length}`;
    throw expressionError(source, expressionCharsMax, detail);
  }
  try {
    const tree = parseTree(source);
    const compiler = new Compiler(source, options);
    const run = compiler.compileTop(tree.ast);
    const checked = tree.check();
    if (!checked.valid && !isAllowed(checked.error)) throw checked.error;
    const type = checked.valid ? checked.type : "dyn";
    if (options.condition === true && type !== "bool" && type?.startsWith("dyn") !== true) {
      const detail = `expected a condition that is true or false, this is always ${type}`;
      throw expressionError(source, 0, detail);
    }
    return { run, needsBody: compiler.needsBody };
  } catch (cause) {
    throw fromLibraryError(source, cause);
  }
}

class Compiler implements Compiling {
  readonly #source: string;
  readonly #options: CompileOptions;
  /** The variables of the macros around the place being compiled; the index is the slot. */
  readonly #locals: string[] = [];
  #nodes = 0;
  needsBody = false;

  constructor(source: string, options: CompileOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** Only what becomes the result can be marked by `raw(x)`. */
  compileTop(node: ASTNode): Run {
    if (node.op === "?:") {
      const [condition, yes, no] = node.args;
      return operators.choice(this.compile(condition), this.compileTop(yes), this.compileTop(no));
    }
    const isRaw = node.op === "call" && node.args[0] === "raw" && node.args[1].length === 1;
    const argument = isRaw ? node.args[1][0] : undefined;
    if (argument === undefined) return this.compile(node);
    const run = this.compile(argument);
    return (evaluation) => {
      const value = run(evaluation);
      return value instanceof Failure ? value : new Raw(value);
    };
  }

  compile(node: ASTNode): Run {
    this.#nodes++;
    if (isBinary(node)) return this.#binary(node.op, node.args[0], node.args[1]);
    switch (node.op) {
      case "value":
        return constant(literalOf(node.args));
      case "id":
        return this.#variable(node, node.args);
      case ".":
        return this.#field(node.args[0], node.args[1]);
      case "[]":
        return operators.element(this.compile(node.args[0]), this.compile(node.args[1]));
      case "call":
        return this.#call(node, node.args[0], node.args[1]);
      case "rcall":
        return this.#method(node, node.args);
      case "list":
        return list(node.args.map((member) => this.compile(member)));
      case "map":
        return map(node.args.map(([name, value]) => [this.compile(name), this.compile(value)]));
      case "?:": {
        const [condition, yes, no] = node.args;
        return operators.choice(this.compile(condition), this.compile(yes), this.compile(no));
      }
      case "!_":
        return operators.not(this.compile(node.args));
      case "-_":
        return operators.minus(this.compile(node.args));
      case ".?":
      case "[?]":
        return this.refuse(node, "optional access is not supported; use has(…)");
    }
  }

  compileInner(name: string, nodes: readonly ASTNode[]): Inner {
    const slot = this.#locals.length;
    const before = this.#nodes;
    this.#locals.push(name);
    const runs = nodes.map((node) => this.compile(node));
    this.#locals.pop();
    return { slot, runs, cost: 1 + this.#nodes - before };
  }

  refuse(node: ASTNode, detail: string): never {
    // A method is pointed at by its name, not by what it is called on.
    const offset =
      node.op === "rcall" ? this.#source.indexOf(node.args[0], node.args[1].end) : node.pos;
    throw expressionError(this.#source, offset, detail);
  }

  #binary(operator: Operator, first: ASTNode, second: ASTNode): Run {
    const left = this.compile(first);
    const right = this.compile(second);
    if (isArithmetic(operator)) return operators.arithmetic(operator, left, right);
    const literal = second.op === "value" ? literalOf(second.args) : undefined;
    switch (operator) {
      case "&&":
      case "||":
        return operators.logical(left, right, operator === "||");
      case "==":
      case "!=":
        return isSimple(literal)
          ? operators.literalEquality(left, literal, operator === "==")
          : operators.equality(left, right, operator === "==");
      case "in":
        return operators.membership(left, right);
      case "<":
      case "<=":
      case ">":
      case ">=": {
        const number = operators.plainNumber(literal);
        return number === null
          ? operators.comparison(operator, left, right)
          : operators.literalComparison(operator, left, number);
      }
    }
  }

  #variable(node: ASTNode, name: string): Run {
    const slot = this.#locals.lastIndexOf(name);
    if (slot >= 0) return (evaluation: Evaluation) => evaluation.locals[slot];
    const variable = variables.get(name);
    if (variable !== undefined && this.#isAllowed(node, name)) {
      if (BODY_VARIABLES.has(name)) this.needsBody = true;
      // The type checker knows `bytes` as a type's name: it gets to see another one.
      if (name === "bytes") (node as { args: unknown }).args = BYTES_ALIAS;
      return variable;
    }
    const type = typeNames.get(name);
    if (type !== undefined) return constant(type);
    const { item = false, claims = false } = this.#options;
    const absent = [...(item ? [] : ["item"]), ...(claims ? [] : ["claims"])];
    const known = [...variables.keys()].filter((each) => !absent.includes(each));
    const detail = `expected a variable, ${JSON.stringify(name)} is none`;
    return this.refuse(node, detail + didYouMean(name, [...known, ...this.#locals]));
  }

  #isAllowed(node: ASTNode, name: string): boolean {
    if (name === "item") return this.#options.item === true;
    if (name === "claims") return this.#options.claims === true;
    if (this.#options.stored !== false || !STORED_VARIABLES.has(name)) return true;
    return this.refuse(node, `${name} is not known yet: this runs before the message is stored`);
  }

  #field(target: ASTNode, name: string): Run {
    const isHeaders = target.op === "id" && target.args === "headers";
    if (isHeaders && !this.#locals.includes("headers")) return headerField(name);
    return operators.field(this.compile(target), name);
  }

  #call(node: ASTNode, name: string, args: readonly ASTNode[]): Run {
    const [first] = args;
    if (name === "has" && first !== undefined && args.length === 1) {
      return compileHas(this, node, first);
    }
    return compileCall(this, name, args, false) ?? this.#unknownCall(node, name, args.length);
  }

  #method(node: ASTNode, [name, receiver, args]: [string, ASTNode, readonly ASTNode[]]): Run {
    return (
      compileMacro(this, name, receiver, args) ??
      compileCall(this, name, [receiver, ...args], true) ??
      this.#unknownCall(node, name, args.length)
    );
  }

  #unknownCall(node: ASTNode, name: string, count: number): never {
    if (functionNames.has(name) || macroNames.has(name)) {
      return this.refuse(node, `${name} is not called with ${count} arguments in this way`);
    }
    const known = [...functionNames, ...macroNames];
    const detail = `expected a function, ${JSON.stringify(name)} is none`;
    return this.refuse(node, detail + didYouMean(name, known));
  }
}

type Operator = "==" | "!=" | "in" | "&&" | "||" | Arithmetic | Comparison;
type BinaryNode = Extract<ASTNode, { readonly op: Operator }>;

const ARITHMETIC: ReadonlySet<string> = new Set(["+", "-", "*", "/", "%"]);
const OTHERS: ReadonlySet<string> = new Set(["==", "!=", "in", "&&", "||", "<", "<=", ">", ">="]);

function isBinary(node: ASTNode): node is BinaryNode {
  return ARITHMETIC.has(node.op) || OTHERS.has(node.op);
}

function isArithmetic(operator: Operator): operator is Arithmetic {
  return ARITHMETIC.has(operator);
}

function constant(value: unknown): Run {
  return () => value;
}

/** A literal in our form: the library gives whole numbers as bigint and unsigned ones boxed. */
function literalOf(value: unknown): unknown {
  if (typeof value === "bigint") return whole(value);
  if (typeof value === "number") return Number.isSafeInteger(value) ? new Double(value) : value;
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  const unsigned: unknown = value.valueOf();
  return typeof unsigned === "bigint" ? whole(unsigned) : value;
}

/** Literals that `===` compares rightly with values of their own type. */
function isSimple(literal: unknown): boolean {
  return literal === null || ["string", "boolean", "number"].includes(typeof literal);
}

function list(runs: readonly Run[]): Run {
  return (evaluation) => {
    const members: unknown[] = [];
    evaluation.made = true;
    for (const run of runs) {
      const value = run(evaluation);
      if (value instanceof Failure) return value;
      members.push(value);
    }
    return members;
  };
}

function map(entries: readonly (readonly [Run, Run])[]): Run {
  return (evaluation) => {
    // Without a prototype, `__proto__` is a name like any other.
    const members = Object.create(null) as Record<string, unknown>;
    evaluation.made = true;
    for (const [nameRun, valueRun] of entries) {
      const key = nameRun(evaluation);
      const value = valueRun(evaluation);
      if (key instanceof Failure) return key;
      if (value instanceof Failure) return value;
      const name = operators.memberName(key);
      if (name === null) return new Failure("a map's key is text, a whole number or a boolean");
      members[name] = value;
    }
    return members;
  };
}
