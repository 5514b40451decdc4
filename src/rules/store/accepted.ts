/**
 * From the stored set to the accepted one: documents parsed, references between them checked.
 * Parsed forms are kept from one set to the next, so what did not change stays the same object.
 */
import { assert } from "../../assert.ts";
import { ConflictError, type InvalidDetail, InvalidError } from "../../errors.ts";
import {
  type AccessDocument,
  type BridgeAddress,
  type BridgeDocument,
  type Definition,
  type Definitions,
  type HookDocument,
  type JsonObject,
  KINDS,
  type Kind,
  type RuleDocument,
  type SourceDocument,
  type StreamDocument,
} from "../document.ts";
import { keyOf, type State, type StoredDefinition } from "./state.ts";

type Bridges = ReadonlyMap<string, BridgeDocument>;

/**
 * Parses one document, whose secrets are references already. `bridges` are all of the set, by
 * name. @throws InvalidError with pointers into the document, whose text names the definition.
 */
export type Parse = (kind: Kind, name: string, document: JsonObject, bridges: Bridges) => unknown;

/** A stored set and its parsed form. */
export interface Accepted {
  readonly state: State;
  readonly definitions: Definitions;
}

/** The set without definitions. */
export const noDefinitions: Definitions = {
  version: 0,
  bridges: new Map(),
  streams: new Map(),
  sources: new Map(),
  hooks: new Map(),
  rules: new Map(),
  access: new Map(),
};

/** One definition that was refused, and why. */
export interface Refusal {
  readonly kind: Kind;
  readonly name: string;
  readonly error: InvalidError;
}

/**
 * Parses what is not parsed yet and checks that every bridge named is there. Refusals are handed
 * over all together, and then nothing is accepted.
 */
export function accept(
  state: State,
  before: Definitions,
  parse: Parse,
): Accepted | readonly Refusal[] {
  const refusals: Refusal[] = [];
  const parsed: Record<Kind, Map<string, Definition>> = {
    bridges: new Map(),
    streams: new Map(),
    sources: new Map(),
    hooks: new Map(),
    rules: new Map(),
    access: new Map(),
  };
  const bridges = new Map<string, BridgeDocument>();
  const bridgesBefore = bridgesOf(before);
  const inOrder = [...state.definitions.values()].toSorted((left, right) => {
    return KINDS.indexOf(left.kind) - KINDS.indexOf(right.kind);
  });
  for (const stored of inOrder) {
    try {
      const known = before[stored.kind].get(stored.name);
      const isKept = known !== undefined && isUnchanged(known, stored, bridgesBefore, bridges);
      const definition = isKept ? known : parseStored(stored, parse, bridges);
      parsed[stored.kind].set(stored.name, definition);
      if (stored.kind === "bridges") bridges.set(stored.name, definition.parsed as BridgeDocument);
    } catch (error) {
      if (!(error instanceof InvalidError)) throw error;
      refusals.push({ kind: stored.kind, name: stored.name, error });
    }
  }
  refusals.push(...missingBridges(Object.values(parsed), bridges));
  if (refusals.length > 0) return refusals;
  return { state, definitions: typed(state.version, parsed) };
}

// Which parsed form a kind has is the parser's contract; this is the one place that takes it.
function typed(version: number, parsed: Record<Kind, Map<string, Definition>>): Definitions {
  return {
    version,
    bridges: parsed.bridges as Map<string, Definition<BridgeDocument>>,
    streams: parsed.streams as Map<string, Definition<StreamDocument>>,
    sources: parsed.sources as Map<string, Definition<SourceDocument>>,
    hooks: parsed.hooks as Map<string, Definition<HookDocument>>,
    rules: parsed.rules as Map<string, Definition<RuleDocument>>,
    access: parsed.access as Map<string, Definition<AccessDocument>>,
  };
}

/** The parsed bridges of a set, by name. */
export function bridgesOf(definitions: Definitions): ReadonlyMap<string, BridgeDocument> {
  return new Map([...definitions.bridges].map(([name, bridge]) => [name, bridge.parsed]));
}

/** A stored document with its parsed form. @throws InvalidError */
export function parseStored(
  stored: Pick<StoredDefinition, "kind" | "name" | "revision" | "project" | "document">,
  parse: Parse,
  bridges: Bridges,
): Definition {
  const { kind, name, revision, project, document } = stored;
  return { kind, name, revision, project, document, parsed: parse(kind, name, document, bridges) };
}

/**
 * Whether the earlier parsed form still holds; what an address means depends on its bridge's kind.
 */
function isUnchanged(
  known: Definition,
  stored: StoredDefinition,
  before: Bridges,
  bridges: Bridges,
): boolean {
  if (known.revision !== stored.revision || known.project !== stored.project) return false;
  if (JSON.stringify(known.document) !== JSON.stringify(stored.document)) return false;
  return placesOf(known).every(({ bridge }) => {
    if (bridge === null) return true;
    const kind = before.get(bridge)?.kind;
    return kind !== undefined && kind === bridges.get(bridge)?.kind;
  });
}

/** A bridge or a stream that a definition names, and where in its document. */
interface Place {
  readonly pointer: string;
  readonly bridge: string | null;
  readonly stream: string | null;
}

function placesOf(definition: Definition): readonly Place[] {
  switch (definition.kind) {
    case "sources": {
      const { from, stream } = definition.parsed as SourceDocument;
      return [place("/from", from), place("/stream", { stream })];
    }
    case "hooks":
      return [place("/stream", { stream: (definition.parsed as HookDocument).stream })];
    case "rules": {
      const { from, to } = definition.parsed as RuleDocument;
      return [place("/from", from), ...to.map((target, index) => place(`/to/${index}`, target.to))];
    }
    case "bridges":
    case "streams":
    case "access":
      return [];
  }
}

function place(pointer: string, named: BridgeAddress | { readonly stream: string }): Place {
  return "bridge" in named
    ? { pointer, bridge: named.bridge, stream: null }
    : { pointer, bridge: null, stream: named.stream };
}

function missingBridges(
  parsed: readonly ReadonlyMap<string, Definition>[],
  bridges: Bridges,
): Refusal[] {
  return parsed
    .flatMap((ofKind) => [...ofKind.values()])
    .flatMap((definition) => {
      const errors: InvalidDetail[] = placesOf(definition)
        .filter(({ bridge }) => bridge !== null && !bridges.has(bridge))
        .map(({ pointer, bridge }) => {
          return { pointer: `${pointer}/bridge`, detail: `there is no bridge ${bridge}` };
        });
      if (errors.length === 0) return [];
      const text = `${keyOf(definition)}: ${errors[0]?.detail}`;
      const error = new InvalidError(text, errors, { code: "definition-invalid" });
      return [{ kind: definition.kind, name: definition.name, error }];
    });
}

/**
 * What still names a bridge or stream that is to be deleted.
 * @throws ConflictError `in-use`, naming the users.
 */
export function checkUnused(
  definitions: Pick<Definitions, "sources" | "hooks" | "rules">,
  deleted: { readonly kind: Kind; readonly name: string },
): void {
  const { kind, name } = deleted;
  if (kind !== "bridges" && kind !== "streams") return;
  const users = [definitions.sources, definitions.hooks, definitions.rules]
    .flatMap((ofKind): Definition[] => [...ofKind.values()])
    .filter((definition) => {
      return placesOf(definition).some((named) => {
        return (kind === "bridges" ? named.bridge : named.stream) === name;
      });
    })
    .map(keyOf);
  if (users.length === 0) return;
  throw new ConflictError("in-use", `${kind}/${name} is in use by ${users.join(", ")}`, { users });
}

/**
 * One error of all refusals. `isBare`: the pointers are into the one document that was sent;
 * else each begins with `/KIND/NAME`, as in a file of definitions.
 */
export function refusedTogether(refusals: readonly Refusal[], isBare: boolean): InvalidError {
  const first = refusals[0];
  assert(first !== undefined, "there is something that was refused");
  const errors = refusals.flatMap(({ kind, name, error }): InvalidDetail[] => {
    const details =
      error.errors.length > 0 ? error.errors : [{ pointer: "", detail: error.message }];
    if (isBare) return [...details];
    return details.map((detail) => ({ ...detail, pointer: `/${kind}/${name}${detail.pointer}` }));
  });
  const rest = refusals.length === 1 ? "" : ` (and ${refusals.length - 1} more are not valid)`;
  return new InvalidError(first.error.message + rest, errors, {
    code: "definition-invalid",
    cause: first.error,
  });
}
