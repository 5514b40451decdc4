/**
 * Hooks as they run: documents with their expressions compiled and their senders' verifiers made.
 * A part of the gateway, which makes them anew with each change of the definitions.
 */
import type { Clock } from "./clock.ts";
import { KeyUses } from "./http/verify/uses.ts";
import { type Verifier, verifierOf } from "./http/verify/verifier.ts";
import type { FileLog } from "./log/files.ts";
import type { Definitions, HookDocument } from "./rules/document.ts";
import { compileExpression, type Expression } from "./rules/expression.ts";
import type { Store } from "./rules/store/store.ts";

/** A hook as it runs: its document with its expressions compiled. */
export interface RunningHook {
  readonly name: string;
  readonly document: HookDocument;
  readonly key: Expression | null;
  readonly dedupe: Expression | null;
  /** Absent where senders are not verified. */
  readonly verifier?: Verifier;
}

/** What hooks are made with. */
export interface HookParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: FileLog;
}

/** A hook that has not changed goes on as it is, with its counts, limits and resolved keys. */
export function compileHooks(
  definitions: Definitions,
  before: ReadonlyMap<string, RunningHook>,
  { store, clock, log }: HookParts,
): ReadonlyMap<string, RunningHook> {
  const resolve = (text: string): Promise<string> => store.resolveText(text);
  const hooks = new Map<string, RunningHook>();
  for (const { name, parsed } of definitions.hooks.values()) {
    const running = before.get(name);
    if (running?.document === parsed) {
      hooks.set(name, running);
      continue;
    }
    const key = compileEarly(parsed.key);
    const dedupe = compileEarly(parsed.dedupe === false ? null : parsed.dedupe);
    const uses = new KeyUses(log.states, name);
    const verifier = verifierOf(parsed, {
      resolve,
      clock,
      uses,
      fetch: (url, init) => fetch(url, init),
    });
    const hook = { name, document: parsed, key, dedupe };
    hooks.set(name, verifier === null ? hook : { ...hook, verifier });
  }
  return hooks;
}

/** Compiles an expression over messages that are not in the log yet. */
export function compileEarly(source: string | null): Expression | null {
  return source === null ? null : compileExpression(source, { stored: false });
}
