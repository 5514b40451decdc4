/**
 * Templates: JSON data whose texts hold `${CEL}`. A text that is one `${…}` keeps the value's
 * type; in other texts values become text. `$${` is a literal `${`.
 */
import { InvalidError, type InvalidDetail } from "../errors.ts";
import { expressionTextMax, templateCharsMax } from "./limits.ts";
import { placeOf } from "./cel/problem.ts";
import { toMember, toText } from "./convert.ts";
import {
  type CompileOptions,
  compileExpression,
  type Expression,
  type Subject,
} from "./expression.ts";
import { EvaluationError } from "./failure.ts";

/** A compiled template. */
export interface Template {
  /** It holds no expression: every rendering is the same. */
  readonly constant: boolean;
  /** An expression in it looks at the body. */
  readonly needsBody: boolean;
  /**
   * The data for a message; bytes only when the whole template is one `${…}`. Parts of it may be
   * the message's own parsed body: do not change them. @throws EvaluationError
   */
  render(message: Subject, item?: unknown): unknown;
}

/** A part of a text: literal, or an expression. */
export type Part = string | Expression;

/**
 * Compiles JSON data. @throws InvalidError with a pointer into the data, and line and column
 * within the text, for each expression that is wrong.
 */
export function compileTemplate(value: unknown, options: CompileOptions = {}): Template {
  const errors: InvalidDetail[] = [];
  const template = compileNode(value, { options, errors }, "");
  if (errors.length > 0) throw new InvalidError(errors[0]?.detail ?? "", errors);
  return template;
}

/** The parts of a text. @throws InvalidError with line and column within the text. */
export function compileText(text: string, options: CompileOptions = {}): readonly Part[] {
  if (text.length > templateCharsMax) {
    throw templateError(text, 0, `a text has more than ${templateCharsMax} characters`);
  }
  const parts: Part[] = [];
  let literal = "";
  let index = 0;
  while (index < text.length) {
    if (text.startsWith("$${", index)) {
      literal += "${";
      index += 3;
    } else if (text.startsWith("${", index)) {
      const end = endOfExpression(text, index + 2);
      if (literal !== "") parts.push(literal);
      literal = "";
      parts.push(compilePart(text, index + 2, end, sited(options, `@${index}`)));
      index = end + 1;
    } else {
      literal += text[index];
      index++;
    }
  }
  if (literal !== "" || parts.length === 0) parts.push(literal);
  return parts;
}

/** The options for what stands at a place within. */
function sited(options: CompileOptions, place: string): CompileOptions {
  return { ...options, site: `${options.site ?? ""}${place}` };
}

/** Whether a text holds an expression. */
export function hasExpression(text: string): boolean {
  return text.replaceAll("$${", "").includes("${");
}

/** The texts of the parts joined. @throws EvaluationError it becomes too long. */
export function joinParts(texts: Iterable<string>): string {
  let result = "";
  for (const text of texts) result += text;
  if (result.length <= expressionTextMax) return result;
  throw new EvaluationError(`a text has more than ${expressionTextMax} characters`);
}

interface Compile {
  readonly options: CompileOptions;
  readonly errors: InvalidDetail[];
}

const nothing: Template = { constant: true, needsBody: false, render: () => null };

function compileNode(value: unknown, compile: Compile, pointer: string): Template {
  if (typeof value === "string") return compileLeaf(value, compile, pointer);
  if (typeof value !== "object" || value === null) return constantOf(value);
  if (Array.isArray(value)) {
    const members = value.map((each, index) => compileNode(each, compile, `${pointer}/${index}`));
    return collectionOf(value, members, (message, item) =>
      members.map((member) => toMember(member.render(message, item))),
    );
  }
  const entries = Object.entries(value).map(
    ([name, each]) =>
      [name, compileNode(each, compile, `${pointer}/${escapePointer(name)}`)] as const,
  );
  return collectionOf(
    value,
    entries.map(([, member]) => member),
    (message, item) => {
      // Without a prototype, `__proto__` is a name like any other.
      const result = Object.create(null) as Record<string, unknown>;
      for (const [name, member] of entries) result[name] = toMember(member.render(message, item));
      return result;
    },
  );
}

function compileLeaf(text: string, compile: Compile, pointer: string): Template {
  try {
    return textTemplate(compileText(text, sited(compile.options, pointer)));
  } catch (cause) {
    if (!(cause instanceof InvalidError)) throw cause;
    for (const error of cause.errors) {
      compile.errors.push({ ...error, pointer: pointer + error.pointer });
    }
    return nothing;
  }
}

function textTemplate(parts: readonly Part[]): Template {
  const [first] = parts;
  const needsBody = parts.some((part) => typeof part !== "string" && part.needsBody);
  if (parts.length === 1 && first !== undefined) {
    if (typeof first === "string") return constantOf(first);
    return { constant: false, needsBody, render: (message, item) => first.evaluate(message, item) };
  }
  const render = (message: Subject, item?: unknown): string =>
    joinParts(
      parts.map((part) => (typeof part === "string" ? part : toText(part.evaluate(message, item)))),
    );
  return { constant: false, needsBody, render };
}

function constantOf(value: unknown): Template {
  return { constant: true, needsBody: false, render: () => value };
}

function collectionOf(
  value: unknown,
  members: readonly Template[],
  render: Template["render"],
): Template {
  // A constant text may still hold `$${`, so the rendering is kept and not the data as written.
  if (members.every((member) => member.constant)) {
    return constantOf(members.length === 0 ? value : render(undefined as never));
  }
  return { constant: false, needsBody: members.some((member) => member.needsBody), render };
}

/** References of bridges and hooks, which rules have no use for. */
const REFERENCE = /^\s*(?:env|file|secret):/;

function compilePart(
  text: string,
  start: number,
  end: number,
  options: CompileOptions,
): Expression {
  const source = text.slice(start, end);
  if (REFERENCE.test(source)) {
    const detail =
      "expected an expression; references such as ${env:NAME} work in bridges and hooks";
    throw templateError(text, start, detail);
  }
  try {
    return compileExpression(source, options);
  } catch (cause) {
    if (!(cause instanceof InvalidError)) throw cause;
    const inner = cause.errors[0];
    const detail = inner?.detail ?? cause.message;
    throw templateError(text, start + offsetOf(source, inner), detail);
  }
}

/** The offset of a line and column, both from 1. */
function offsetOf(source: string, place: { line?: number; column?: number } | undefined): number {
  let start = 0;
  for (let line = 1; line < (place?.line ?? 1); line++) start = source.indexOf("\n", start) + 1;
  return start + (place?.column ?? 1) - 1;
}

/** Where the `}` is that closes an expression: braces nest, texts and comments are passed over. */
function endOfExpression(text: string, start: number): number {
  let depth = 0;
  let index = start;
  while (index < text.length) {
    const sign = text[index];
    if (sign === '"' || sign === "'") {
      index = endOfQuoted(text, index);
      continue;
    }
    if (sign === "/" && text[index + 1] === "/") {
      const lineEnd = text.indexOf("\n", index);
      if (lineEnd < 0) break;
      index = lineEnd;
    } else if (sign === "{") depth++;
    else if (sign === "}") {
      if (depth === 0) return index;
      depth--;
    }
    index++;
  }
  throw templateError(text, start - 2, 'expected "}" that closes "${", found the end');
}

/** The index after a quoted text; a backslash takes the next sign with it, in raw texts too. */
function endOfQuoted(text: string, start: number): number {
  const quote = text.slice(start, start + 1);
  const triple = quote.repeat(3);
  const closing = text.startsWith(triple, start) ? triple : quote;
  let index = start + closing.length;
  while (index < text.length) {
    if (text.startsWith(closing, index)) return index + closing.length;
    index += text[index] === "\\" ? 2 : 1;
  }
  return text.length;
}

function templateError(text: string, offset: number, detail: string): InvalidError {
  const place = placeOf(text, offset);
  return new InvalidError(`line ${place.line}, column ${place.column}: ${detail}`, [
    { pointer: "", detail, ...place },
  ]);
}

/** A name as a step of a JSON pointer. */
export function escapePointer(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
