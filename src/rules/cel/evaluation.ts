/**
 * One evaluation: the message looked at, the variables of macros, and the steps that are left.
 * A compiled expression is a tree of closures over it. A closure gives a value or a `Failure`;
 * only running out of steps is thrown, for nothing may swallow that.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { assert } from "../../assert.ts";
import { expressionStepsMax } from "../limits.ts";
import type { ReadableMessage, StoredMessage } from "../../message.ts";
import { EvaluationError } from "../failure.ts";
import type { Payer } from "./values.ts";

/** What expressions look at: a message, and its place once it is stored. */
export type Subject = ReadableMessage & Partial<StoredMessage>;

/** A compiled part of an expression. */
export type Run = (evaluation: Evaluation) => unknown;

/** A function of evaluated arguments; none of them is a failure. */
export type Apply = (evaluation: Evaluation, ...values: unknown[]) => unknown;

/** A value that `raw(x)` marks: it may hold what its place in an address otherwise forbids. */
export class Raw {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

/** The state of one evaluation at a time; belongs to one expression and is used again. */
export class Evaluation implements Payer {
  readonly locals: unknown[] = [];
  item: unknown = undefined;
  /** A list or map was made: the result may hold wrapped values that must not leave. */
  made = false;
  readonly #mark: string;
  #message: Subject | null = null;
  #steps = 0;
  #uuids = 0;

  /** `mark` tells the expression apart from others: equal ones of a message get equal UUIDs. */
  constructor(mark: string) {
    this.#mark = mark;
  }

  begin(message: Subject, item: unknown): void {
    this.#message = message;
    this.#uuids = 0;
    this.item = item;
    this.made = false;
    this.#steps = expressionStepsMax;
  }

  /** Lets go of the message, so that an idle expression keeps nothing alive. */
  end(): void {
    this.#message = null;
    this.item = undefined;
    this.locals.length = 0;
  }

  get message(): Subject {
    assert(this.#message !== null, "an evaluation runs between begin and end");
    return this.#message;
  }

  /**
   * What the next UUID of this evaluation is made from: the message's id and the expression, so
   * that a retry and a replay send what the first attempt sent.
   */
  nextUuidSeed(): string {
    this.#uuids++;
    return `${this.message.id}\n${this.#mark}\n${this.#uuids}`;
  }

  pay(steps: number): void {
    this.#steps -= steps;
    if (this.#steps >= 0) return;
    throw new EvaluationError(`the expression needs more than ${expressionStepsMax} steps`);
  }
}

/** What compiles the parts of an expression: handed to macros and functions for their arguments. */
export interface Compiling {
  compile(node: ASTNode): Run;
  /** Compiles parts that see one more variable; `cost` is the steps of running all of them once. */
  compileInner(name: string, nodes: readonly ASTNode[]): Inner;
  /** Always throws an InvalidError that points at the node. */
  refuse(node: ASTNode, detail: string): never;
}

/** Parts compiled with a variable of their own, which stands in `locals[slot]`. */
export interface Inner {
  readonly slot: number;
  readonly runs: readonly Run[];
  readonly cost: number;
}
