/** Assertions stay on in production: a wrong state stops the caller before it reaches the disk. */

/** A broken invariant: always a bug of ours, never an input's fault. */
export class AssertionError extends Error {
  override get name(): string {
    return "AssertionError";
  }
}

/** Throws when a fact that must hold doesn't. One fact an assert. */
export function assert(fact: boolean, sentence: string): asserts fact {
  if (!fact) throw new AssertionError(sentence);
}
