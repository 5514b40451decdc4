/**
 * Expressions of rules: CEL over one message. Compiled once, evaluated for each message, without
 * side effects and within bounds of size, depth and steps. The body is parsed only when an
 * expression looks inside.
 */
import { Evaluation, Raw, type Run, type Subject } from "./cel/evaluation.ts";
import { type CompileOptions, compileSource } from "./cel/compile.ts";
import { plain } from "./cel/plain.ts";
import { kindOf } from "./cel/values.ts";
import { EvaluationError, Failure } from "./failure.ts";

export type { CompileOptions, Subject };

/** What a condition says of a message; `failed` counts as no. */
export type Verdict = "yes" | "no" | "failed";

/**
 * Compiles a CEL expression.
 * @throws InvalidError one detail with pointer "", line and column (from 1) within the source, and
 * what was expected: the author must correct it.
 */
export function compileExpression(source: string, options: CompileOptions = {}): Expression {
  const { run, needsBody } = compileSource(source, options);
  return new Expression(source, { run, needsBody, site: options.site ?? "" });
}

/** A compiled expression. Evaluating is synchronous and changes nothing. */
export class Expression {
  readonly source: string;
  /** Whether it looks at the body in any form. */
  readonly needsBody: boolean;
  readonly #run: Run;
  readonly #evaluation: Evaluation;

  constructor(
    source: string,
    parts: { readonly run: Run; readonly needsBody: boolean; readonly site: string },
  ) {
    this.source = source;
    this.needsBody = parts.needsBody;
    this.#run = parts.run;
    this.#evaluation = new Evaluation(`${parts.site}\n${source}`);
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
