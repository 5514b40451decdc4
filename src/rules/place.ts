/**
 * Places in outside systems, as documents name them: `{ bridge: eu, topic: orders }`. The bridge
 * must be there, and its module says what the rest means.
 */
import type { BridgeModule } from "../bridge.ts";
import type { BridgeAddress, JsonObject } from "./document.ts";
import { type Problems, shown } from "./problems.ts";
import { didYouMean } from "./suggest.ts";
import { compileTemplate } from "./template.ts";

/** What a document may refer to. */
export interface ParseContext {
  /** Modules by kind. */
  readonly modules: ReadonlyMap<string, BridgeModule>;
  /** The bridges that are or will be defined, by name. */
  readonly bridges: ReadonlyMap<string, { readonly kind: string }>;
  /** What `start: 1h ago` counts from; without it only absolute times are understood. */
  readonly nowMs?: number;
  /** The pointer to the document within what its author sent, such as `/rules/big-orders`. */
  readonly pointer?: string;
}

/** Whether a value is a map, as documents are. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Which end of a bridge a place is for, and which of its keys are not the module's. */
export interface PlaceUse {
  readonly end: "source" | "sink";
  readonly taken: readonly string[];
}

/** The module of a kind or of another name for it. */
export function findModule(
  modules: ReadonlyMap<string, BridgeModule>,
  kind: string,
): BridgeModule | null {
  const module = modules.get(kind);
  if (module !== undefined) return module;
  for (const each of modules.values()) if (each.aliases?.includes(kind) === true) return each;
  return null;
}

/** Parses a place; null when something is wrong with it, which is then among the problems. */
export function parsePlace(
  value: JsonObject,
  use: PlaceUse,
  at: { readonly pointer: string; readonly problems: Problems; readonly context: ParseContext },
): BridgeAddress | null {
  const { pointer, problems, context } = at;
  const { bridge } = value;
  if (typeof bridge !== "string") {
    problems.add(`${pointer}/bridge`, `expected the name of a bridge, found ${shown(bridge)}`);
    return null;
  }
  const kind = context.bridges.get(bridge)?.kind;
  if (kind === undefined) {
    const near = didYouMean(bridge, context.bridges.keys());
    problems.add(`${pointer}/bridge`, `there is no bridge ${JSON.stringify(bridge)}${near}`);
    return null;
  }
  const module = findModule(context.modules, kind);
  if (module === null) {
    const detail = `bridge ${JSON.stringify(bridge)} is of kind ${kind}, which is not available`;
    problems.add(`${pointer}/bridge`, detail);
    return null;
  }
  if (!module.capabilities[use.end]) {
    const what = use.end === "source" ? "read from" : "written to";
    problems.add(`${pointer}/bridge`, `a bridge of kind ${module.kind} can't be ${what}`);
    return null;
  }
  const taken = new Set(["bridge", ...use.taken]);
  const rest = Object.fromEntries(Object.entries(value).filter(([key]) => !taken.has(key)));
  const rendered = Object.entries(rest).filter(([key]) => module.fixedKeys?.includes(key) !== true);
  const templates =
    use.end === "source" ||
    problems.check(pointer, () => compileTemplate(Object.fromEntries(rendered)));
  const address = problems.check(pointer, () => module.parseAddress(rest, use.end));
  if (templates === null || address === null) return null;
  const { fields, text, fixed } = address;
  return { bridge, kind: module.kind, fields, text, ...(fixed === undefined ? {} : { fixed }) };
}
