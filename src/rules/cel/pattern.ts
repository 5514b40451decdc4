/**
 * Regular expressions by RE2: time grows with the text and the pattern, never beyond. JavaScript's
 * own engine is not used, for a pattern of ten characters can stop it for years.
 */
import { RE2JS } from "re2js";
import { errorText } from "../../errors.ts";
import { patternCacheMax, patternCharsMax, patternSizeMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import type { Payer } from "./values.ts";

/** Steps for each character: a few, and more for each instruction of the pattern. */
const STEPS_BASE = 8;
const INSTRUCTIONS_PER_STEP = 3;

/** A compiled pattern. */
export interface Pattern {
  readonly regex: RE2JS;
  readonly stepsPerChar: number;
}

const cache = new Map<string, Pattern | Failure>();

/** Compiles a pattern; a failure says what is wrong with it. */
export function compilePattern(source: string): Pattern | Failure {
  if (source.length > patternCharsMax) {
    return new Failure(`a pattern has more than ${patternCharsMax} characters`);
  }
  try {
    const regex = RE2JS.compile(source);
    const size = regex.programSize();
    if (size > patternSizeMax) {
      return new Failure(
        `the pattern ${JSON.stringify(source)} is too large when its repeats are written out`,
      );
    }
    return { regex, stepsPerChar: STEPS_BASE + Math.ceil(size / INSTRUCTIONS_PER_STEP) };
  } catch (cause) {
    return new Failure(
      `the pattern ${JSON.stringify(source)} is not valid RE2: ${errorText(cause)}`,
    );
  }
}

/** Like `compilePattern`, for patterns that come from messages: the last ones are kept. */
export function cachedPattern(source: string): Pattern | Failure {
  let pattern = cache.get(source);
  if (pattern !== undefined) return pattern;
  pattern = compilePattern(source);
  if (cache.size >= patternCacheMax) {
    const oldest = cache.keys().next();
    if (oldest.done !== true) cache.delete(oldest.value);
  }
  if (source.length <= patternCharsMax) cache.set(source, pattern);
  return pattern;
}

/** Whether the pattern occurs anywhere in the text. */
export function matchesText(pattern: Pattern, text: string, payer: Payer): boolean {
  payer.pay(text.length * pattern.stepsPerChar);
  return pattern.regex.matcher(text).find();
}
