/**
 * Expressions of rules: CEL over one message. Compiled once, evaluated for each message, without
 * side effects and within bounds of size, depth and steps. The body is parsed only when an
 * expression looks inside.
 */
import { Buffer } from "node:buffer";
import { Evaluation, Raw, type Run, type Subject } from "./cel/evaluation.ts";
import { type CompileOptions, compileSource } from "./cel/compile.ts";
import { Double, numberOf } from "./cel/numbers.ts";
import { isMap, kindOf, temporalText, TypeName } from "./cel/values.ts";
import { EvaluationError, Failure } from "./failure.ts";

export type { CompileOptions, Subject };

/** What a condition says of a message; `failed` counts as no. */
export type Verdict = "yes" | "no" | "failed";

/** Characters that cost a step when a result is made plain. */
const CHARS_PER_STEP = 64;

/**
 * Compiles a CEL expression.
 * @throws InvalidError one detail with pointer "", line and column (from 1) within the source, and
 * what was expected: the author must correct it.
 */
export function compileExpression(source: string, options: CompileOptions = {}): Expression {
  const { run, needsBody } = compileSource(source, options);
  return new Expression(source, run, needsBody);
}

/** A compiled expression. Evaluating is synchronous and changes nothing. */
export class Expression {
  readonly source: string;
  /** Whether it looks at the body in any form. */
  readonly needsBody: boolean;
  readonly #run: Run;
  readonly #evaluation = new Evaluation();

  constructor(source: string, run: Run, needsBody: boolean) {
    this.source = source;
    this.needsBody = needsBody;
    this.#run = run;
  }

  /**
   * The value for a message: JSON data with `bigint` outside ±2^53, or bytes. Parts of it may be
   * the message's own parsed body: do not change them.
   * @throws EvaluationError it failed on this message, and always will.
   */
  evaluate(message: Subject, item?: unknown): unknown {
    const value = this.evaluateMarked(message, item);
    return value instanceof Raw ? value.value : value;
  }

  /** Like `evaluate`, but a value from `raw(x)` comes as a `Raw`. */
  evaluateMarked(message: Subject, item?: unknown): unknown {
    const evaluation = this.#evaluation;
    evaluation.begin(message, item);
    try {
      const value = this.#run(evaluation);
      if (value instanceof Failure) throw new EvaluationError(this.#because(value.reason));
      if (value instanceof Raw) return new Raw(plain(value.value, evaluation));
      return plain(value, evaluation);
    } finally {
      evaluation.end();
    }
  }

  /** What a condition says of a message; never throws for the message's sake. */
  test(message: Subject, item?: unknown): Verdict {
    const evaluation = this.#evaluation;
    evaluation.begin(message, item);
    try {
      const value = this.#run(evaluation);
      if (value === true) return "yes";
      return value === false ? "no" : "failed";
    } catch (cause) {
      if (cause instanceof EvaluationError) return "failed";
      throw cause;
    } finally {
      evaluation.end();
    }
  }

  /** The condition for a message. @throws EvaluationError it failed, or gave something else. */
  condition(message: Subject, item?: unknown): boolean {
    const value = this.evaluate(message, item);
    if (typeof value === "boolean") return value;
    throw new EvaluationError(this.#because(`expected true or false, got ${kindOf(value)}`));
  }

  #because(reason: string): string {
    return `${reason} (in ${this.source})`;
  }
}

/** Takes the wrappers of the evaluator off a result; what needs no change is given as it is. */
function plain(value: unknown, evaluation: Evaluation): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Uint8Array) return value;
  if (!evaluation.made && (Array.isArray(value) || isMap(value))) return value;
  return plainMember(value, evaluation, false);
}

function plainMember(value: unknown, evaluation: Evaluation, nested: boolean): unknown {
  evaluation.pay(1 + (typeof value === "string" ? value.length / CHARS_PER_STEP : 0));
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((member) => plainMember(member, evaluation, true));
  if (isMap(value)) return plainMap(value, evaluation);
  if (value instanceof Double) return numberOf(value);
  if (value instanceof Uint8Array) return nested ? Buffer.from(value).toString("base64") : value;
  return value instanceof TypeName ? value.name : temporalText(value);
}

function plainMap(value: Readonly<Record<string, unknown>>, evaluation: Evaluation): unknown {
  const result = Object.create(null) as Record<string, unknown>;
  for (const name of Object.keys(value)) {
    result[name] = plainMember(value[name], evaluation, true);
  }
  return result;
}
