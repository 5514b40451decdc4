/**
 * `sign` of a rule: what its targets sign with that say nothing of their own. Only bridges whose
 * modules know the key take it; what stands in it is theirs to read.
 */
import type { JsonObject } from "./document.ts";
import { findModule, isObject, type ParseContext } from "./place.ts";
import type { Problems } from "./problems.ts";

const KEY = "sign";

/** The targets as written, each with the rule's `sign` where it can have one and has none. */
export function signed(
  document: JsonObject,
  { context, problems }: { readonly context: ParseContext; readonly problems: Problems },
): JsonObject[string] {
  const { to, sign } = document;
  if (to === undefined || sign === undefined) return to ?? [];
  let signing = 0;
  const withKey = (target: JsonObject[string]): JsonObject[string] => {
    if (!isObject(target) || !takesKey(target, context)) return target;
    signing++;
    return { sign, ...target };
  };
  const targets = Array.isArray(to) ? to.map(withKey) : withKey(to);
  if (signing === 0) problems.add(`/${KEY}`, "no target of this rule can sign: HTTP targets do");
  return targets;
}

function takesKey({ bridge }: JsonObject, context: ParseContext): boolean {
  const kind = typeof bridge === "string" ? context.bridges.get(bridge)?.kind : undefined;
  const module = kind === undefined ? null : findModule(context.modules, kind);
  return module?.fixedKeys?.includes(KEY) === true;
}
