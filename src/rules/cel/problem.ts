/**
 * Errors of expressions in our words: what was found, what was expected, and where (line and
 * column from 1, within the expression's own text).
 */
import { InvalidError } from "../../errors.ts";

/** An offset in a text as line and column, both from 1. */
export function placeOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf("\n") + 1;
  return { line: before.split("\n").length, column: offset - lineStart + 1 };
}

/** An error at an offset of an expression. */
export function expressionError(source: string, offset: number, detail: string): InvalidError {
  const place = placeOf(source, offset);
  return new InvalidError(`line ${place.line}, column ${place.column}: ${detail}`, [
    { pointer: "", detail, ...place },
  ]);
}

/** The members of the library's errors that are used. */
interface LibraryError {
  readonly code: string;
  readonly summary: string;
  readonly range?: { readonly start: number; readonly end: number };
}

/** The library's parse error or type error as ours; anything else is given back as it is. */
export function fromLibraryError(source: string, cause: unknown): unknown {
  if (!isLibraryError(cause)) return cause;
  const start = Math.min(cause.range?.start ?? 0, source.length);
  return expressionError(source, start, sentence(source, cause, start));
}

/** Whether the type checker refused what our evaluation can do: branches of different kinds. */
export function isAllowed(cause: unknown): boolean {
  return isLibraryError(cause) && cause.code === "incompatible_ternary_branches";
}

function isLibraryError(cause: unknown): cause is LibraryError {
  if (!(cause instanceof Error)) return false;
  const { code, summary } = cause as Partial<LibraryError>;
  return typeof code === "string" && typeof summary === "string";
}

/** The library's names of tokens, as they are written. */
const TOKENS: Readonly<Record<string, string>> = {
  EOF: "the end",
  IDENTIFIER: "a name",
  LPAREN: '"("',
  RPAREN: '")"',
  LBRACKET: '"["',
  RBRACKET: '"]"',
  LBRACE: '"{"',
  RBRACE: '"}"',
  DOT: '"."',
  COMMA: '","',
  COLON: '":"',
  QUESTION: '"?"',
};

/** Single signs that are half of an operator. */
const HALVES: Readonly<Record<string, string>> = { "=": "==", "&": "&&", "|": "||" };

function sentence(source: string, error: LibraryError, start: number): string {
  const found = foundAt(source, error, start);
  switch (error.code) {
    case "unexpected_token":
      return `expected a value, found ${found}`;
    case "expected_token": {
      const token = /^Expected (\w+)/.exec(error.summary)?.[1] ?? "";
      return `expected ${TOKENS[token] ?? token}, found ${found}`;
    }
    case "unexpected_character": {
      const whole = HALVES[source[start] ?? ""];
      if (whole !== undefined)
        return `expected an operator, found ${found}; did you mean "${whole}"?`;
      return `expected an operator or the end, found ${found}`;
    }
    case "unterminated_string":
    case "unterminated_triple_quoted_string":
      return "expected the quote that closes this text, found the end";
    case "no_such_overload":
      return `expected types that fit: ${operatorText(error.summary)}`;
    case "no_matching_overload": {
      const call = /'(.+)'/.exec(error.summary)?.[1] ?? error.summary;
      return `expected other arguments: ${call} is not defined`;
    }
    case "invalid_logical_operand":
      return `expected true or false on both sides of && and ||: ${error.summary}`;
    default:
      return error.summary.charAt(0).toLowerCase() + error.summary.slice(1);
  }
}

function operatorText(summary: string): string {
  const [, left, operator, right] = /: (.+) (==|!=|in|[<>]=?|[-+*/%]) (.+)$/.exec(summary) ?? [];
  return left === undefined ? summary : `${operator} is not defined for ${left} and ${right}`;
}

/** Characters of the source that an error shows. */
const SHOWN_CHARS = 20;

function foundAt(source: string, error: LibraryError, start: number): string {
  const end = error.range?.end ?? start;
  if (start >= source.length) return "the end";
  const shown = source.slice(start, Math.max(end, start + 1)).slice(0, SHOWN_CHARS);
  return JSON.stringify(shown);
}
