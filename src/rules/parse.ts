/**
 * Parses definitions: what the API and `apply` take becomes what is run, with every default
 * filled in, or is refused with all that is wrong. Nothing is connected to and nothing is stored.
 */
import { documentDepthMax, documentNodesMax } from "./limits.ts";
import { parseAccess } from "./access.ts";
import {
  type AccessDocument,
  type BridgeDocument,
  type HookDocument,
  type JsonObject,
  KINDS,
  type Kind,
  type RuleDocument,
  type SourceDocument,
  type StreamDocument,
} from "./document.ts";
import { parseHook } from "./hook.ts";
import { parseBridge, parseSource, parseStream } from "./kinds.ts";
import { isObject, type ParseContext } from "./place.ts";
import { Problems, shown } from "./problems.ts";
import { parseRule } from "./rule.ts";
import * as shapes from "./shapes.ts";
import { escapePointer } from "./template.ts";
import { isName, NAME_FORM } from "./units.ts";

/** What each kind's document becomes. */
export interface ParsedDocuments {
  readonly bridges: BridgeDocument;
  readonly streams: StreamDocument;
  readonly sources: SourceDocument;
  readonly hooks: HookDocument;
  readonly rules: RuleDocument;
  readonly access: AccessDocument;
}

/** One document of a file. */
export interface NamedDocument {
  readonly kind: Kind;
  readonly name: string;
  readonly document: JsonObject;
}

/** A definitions file, taken apart. */
export interface DefinitionsFile {
  readonly project: string | null;
  /** In the order in which kinds depend on one another, then as written. */
  readonly documents: readonly NamedDocument[];
}

type Parser<K extends Kind> = (
  document: JsonObject,
  context: ParseContext,
  problems: Problems,
) => ParsedDocuments[K] | null;

const parsers: { readonly [K in Kind]: Parser<K> } = {
  bridges: parseBridge,
  streams: parseStream,
  sources: parseSource,
  hooks: parseHook,
  rules: parseRule,
  access: parseAccess,
};

/**
 * Parses one document.
 * @throws InvalidError `definition-invalid` with a pointer for each problem (below
 * `context.pointer`); in expressions also line and column within the expression's text.
 */
export function parseDefinition<K extends Kind>(
  kind: K,
  name: string,
  document: JsonObject,
  context: ParseContext,
): ParsedDocuments[K] {
  const problems = new Problems(context.pointer ?? "");
  const what = `${singular(kind)} ${JSON.stringify(name)}`;
  if (!isName(name)) problems.add("", `expected ${NAME_FORM}, found ${JSON.stringify(name)}`);
  checkData(document, problems);
  problems.throwIfAny(what);
  const parsed = parsers[kind](document, context, problems);
  problems.throwIfAny(what);
  if (parsed === null) throw new TypeError(`${what} was refused without a reason`);
  return parsed;
}

/**
 * Takes a definitions file apart. What the documents hold is for `parseDefinition`.
 * @throws InvalidError `definition-invalid`: unknown kinds, wrong names, documents that are no
 * maps.
 */
export function parseDefinitions(file: unknown): DefinitionsFile {
  const problems = new Problems();
  const documents: NamedDocument[] = [];
  if (!isObject(file)) {
    problems.add("", `expected a map of ${KINDS.join(", ")}, found ${shown(file)}`);
    problems.throwIfAny("definitions");
    return { project: null, documents };
  }
  const known = ["project", ...KINDS];
  for (const key of Object.keys(file)) {
    if (!known.includes(key)) {
      problems.add(`/${escapePointer(key)}`, shapes.unknownKey(key, known));
    }
  }
  for (const kind of KINDS) documents.push(...documentsOf(file, kind, problems));
  const project = file["project"] ?? null;
  if (project !== null && (typeof project !== "string" || !isName(project))) {
    problems.add("/project", `expected ${NAME_FORM}, found ${shown(project)}`);
  }
  problems.throwIfAny("definitions");
  return { project: typeof project === "string" ? project : null, documents };
}

/** A kind as one of its definitions is called. */
function singular(kind: Kind): string {
  return kind === "access" ? "access" : kind.slice(0, -1);
}

function documentsOf(file: JsonObject, kind: Kind, problems: Problems): NamedDocument[] {
  const group = file[kind];
  if (group === undefined || group === null) return [];
  if (!isObject(group)) {
    problems.add(`/${kind}`, `expected a map of names, found ${shown(group)}`);
    return [];
  }
  const documents: NamedDocument[] = [];
  for (const [name, value] of Object.entries(group)) {
    const pointer = `/${kind}/${escapePointer(name)}`;
    // `orders:` with nothing after it is a definition with nothing but defaults.
    const document = value === null ? {} : value;
    if (!isName(name))
      problems.add(pointer, `expected ${NAME_FORM}, found ${JSON.stringify(name)}`);
    else if (isObject(document)) documents.push({ kind, name, document });
    else problems.add(pointer, `expected a map, found ${shown(value)}`);
  }
  return documents;
}

/** JSON may hold more than a document can: bounds of size, and numbers that would lose digits. */
function checkData(document: unknown, problems: Problems): void {
  let nodes = 0;
  const visit = (value: unknown, pointer: string, depth: number): void => {
    nodes++;
    if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value))) {
      problems.add(pointer, 'a number out of range: quote it, or write "${…}" to keep it a number');
    }
    if (typeof value !== "object" || value === null || nodes > documentNodesMax) return;
    if (depth >= documentDepthMax) {
      problems.add(pointer, `nested deeper than ${documentDepthMax} levels`);
      return;
    }
    for (const [name, member] of Object.entries(value)) {
      visit(member, `${pointer}/${escapePointer(name)}`, depth + 1);
    }
  };
  visit(document, "", 0);
  if (nodes > documentNodesMax) problems.add("", `expected at most ${documentNodesMax} values`);
  if (!isObject(document)) problems.add("", `expected a map, found ${shown(document)}`);
}
