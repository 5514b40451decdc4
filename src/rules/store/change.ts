/**
 * Plans a change: from the accepted set and what is wanted to the next accepted set, and the rows
 * that make it. Everything is checked here, before anything is written; nothing is done here, so
 * a plan can be shown, thrown away or made again on another set.
 */
import { ConflictError, InvalidError, LimitError, NotFoundError } from "../../errors.ts";
import {
  type Accepted,
  accept,
  checkUnused,
  type Parse,
  type Refusal,
  refusedTogether,
} from "./accepted.ts";
import type { Change, ChangeContext, Definitions, Kind } from "../document.ts";
import { secretPathsIn } from "./references.ts";
import { type Keyring, sealDocument } from "./secrets.ts";
import {
  applyWrite,
  keyOf,
  type State,
  type StoredDefinition,
  type StoredRevision,
  type StoredSecret,
  type Write,
} from "./state.ts";
import { isName, NAME_FORM } from "../units.ts";

/** What became of one wanted change. */
export interface ChangeResult {
  readonly kind: Kind;
  readonly name: string;
  /** Where the definition stands after it; of a deletion, the revision that is the deletion. */
  readonly revision: number;
  readonly outcome: "created" | "changed" | "same" | "deleted";
}

/** The next set, and the rows that make it; `write` is null when nothing changes. */
export interface Plan<Result> {
  readonly next: Accepted;
  readonly write: Write | null;
  readonly result: Result;
}

/** What planning needs beside the set. */
export interface PlanTools {
  readonly parse: Parse;
  readonly keyring: Keyring;
  readonly nowMs: number;
  /** Further checks of the whole next set; throws to refuse it. */
  readonly validate: (next: Definitions, before: Definitions) => void;
}

/** Changes in one call: one file of definitions. */
const CHANGES_MAX = 10_000;
/** Definitions in all: each may have a loop running. */
const DEFINITIONS_MAX = 10_000;
/** One document as JSON text; rules are a few KiB. */
const DOCUMENT_CHARACTERS_MAX = 1_048_576;
/** Who, why, project: shown in lists. */
const NOTE_CHARACTERS_MAX = 1_000;

/**
 * Plans all of `changes`, or none.
 * @throws InvalidError a document is wrong. @throws ConflictError `in-use` or `conflict`.
 * @throws NotFoundError something to delete isn't there. @throws LimitError there is too much.
 */
export function planChanges(
  base: Accepted,
  changes: readonly Change[],
  context: ChangeContext,
  tools: PlanTools,
): Plan<readonly ChangeResult[]> {
  checkNotes(context);
  checkCall(changes);
  const isBare = changes.length === 1;
  const refusals: Refusal[] = [];
  const steps: Step[] = [];
  for (const change of changes) {
    try {
      steps.push(planStep(base.state, change, context, tools));
    } catch (error) {
      if (!(error instanceof InvalidError)) throw error;
      refusals.push({ kind: change.kind, name: change.name, error });
    }
  }
  if (refusals.length > 0) throw refusedTogether(refusals, isBare);
  const result = steps.map((step) => step.result);
  if (steps.every(isIdle)) return { next: base, write: null, result };
  const write = writeOf(base.state, steps, context, tools.nowMs);
  const state = applyWrite(base.state, write);
  if (state.definitions.size > DEFINITIONS_MAX) {
    throw new LimitError("too-large", `there can be at most ${DEFINITIONS_MAX} definitions`);
  }
  const next = acceptNext(state, base, steps, { tools, isBare });
  tools.validate(next.definitions, base.definitions);
  return { next, write, result };
}

/** One change, looked at by itself. */
interface Step {
  readonly result: ChangeResult;
  /** The row to be written; null when there is none. */
  readonly definition: StoredDefinition | null;
  readonly secrets: readonly StoredSecret[];
}

const isIdle = (step: Step): boolean => step.result.outcome === "same" && step.definition === null;

function planStep(state: State, change: Change, context: ChangeContext, tools: PlanTools): Step {
  const { kind, name } = change;
  const before = state.definitions.get(keyOf(change));
  checkCondition(change, before);
  const revision = (before?.revision ?? state.gone.get(keyOf(change)) ?? 0) + 1;
  if (change.document === null) {
    if (before === undefined) throw new NotFoundError(`there is no ${kind}/${name}`);
    const result: ChangeResult = { kind, name, revision, outcome: "deleted" };
    return { result, definition: null, secrets: [] };
  }
  const request = { kind, name, document: change.document, held: state.secrets, atMs: tools.nowMs };
  const { document, secrets } = sealDocument(request, tools.keyring);
  const text = JSON.stringify(document);
  if (text.length > DOCUMENT_CHARACTERS_MAX) {
    throw new LimitError(
      "too-large",
      `${kind}/${name} is longer than ${DOCUMENT_CHARACTERS_MAX} characters`,
    );
  }
  // No project named: the definition stays with the one that made it.
  const project = context.project === undefined ? (before?.project ?? null) : context.project;
  const row = { kind, name, project, document, by: context.by, atMs: tools.nowMs };
  if (before === undefined) {
    const result: ChangeResult = { kind, name, revision, outcome: "created" };
    return { result, definition: { ...row, revision }, secrets };
  }
  if (secrets.length > 0 || JSON.stringify(before.document) !== text) {
    const result: ChangeResult = { kind, name, revision, outcome: "changed" };
    return { result, definition: { ...row, revision }, secrets };
  }
  const result: ChangeResult = { kind, name, revision: before.revision, outcome: "same" };
  const definition = project === before.project ? null : { ...before, project };
  return { result, definition, secrets };
}

function writeOf(
  state: State,
  steps: readonly Step[],
  context: ChangeContext,
  atMs: number,
): Write {
  const version = state.version + 1;
  const { by } = context;
  const why = context.why ?? null;
  const revisions = steps.flatMap(({ result, definition }): StoredRevision[] => {
    if (result.outcome === "same") return [];
    const { kind, name, revision } = result;
    const before = state.definitions.get(keyOf(result));
    const project = definition === null ? (before?.project ?? null) : definition.project;
    const document = definition?.document ?? null;
    return [{ kind, name, revision, version, project, document, by, why, atMs }];
  });
  return {
    version,
    change: crypto.randomUUID(),
    by,
    why,
    atMs,
    definitions: steps.flatMap(({ definition }) => definition ?? []),
    revisions,
    secrets: steps.flatMap(({ secrets }) => secrets),
    secretDeletions: unnamedSecrets(state, revisions),
    tokens: [],
  };
}

/** The secrets that a changed definition, and what is kept of a rule's history, no longer name. */
function unnamedSecrets(state: State, revisions: readonly StoredRevision[]): string[] {
  const named = new Map<string, Set<string>>();
  for (const revision of revisions) {
    const paths = new Set<string>();
    const kept = revision.document === null ? [] : (state.history.get(keyOf(revision)) ?? []);
    for (const document of [revision.document, ...kept.map((earlier) => earlier.document)]) {
      for (const path of secretPathsIn(document)) paths.add(path);
    }
    named.set(keyOf(revision), paths);
  }
  return [...state.secrets.values()]
    .filter((secret) => named.get(keyOf(secret))?.has(secret.path) === false)
    .map((secret) => secret.path);
}

function acceptNext(
  state: State,
  base: Accepted,
  steps: readonly Step[],
  how: { readonly tools: PlanTools; readonly isBare: boolean },
): Accepted {
  const deleted = steps.map((step) => step.result).filter((one) => one.outcome === "deleted");
  const { sources, hooks, rules } = base.definitions;
  const staying = <T>(kind: Kind, all: ReadonlyMap<string, T>): ReadonlyMap<string, T> => {
    const touched = new Set(steps.map(({ result }) => keyOf(result)));
    return new Map([...all].filter(([name]) => !touched.has(keyOf({ kind, name }))));
  };
  // Before parsing: a user whose bridge is gone would else be called invalid, and not in use.
  const untouched = {
    sources: staying("sources", sources),
    hooks: staying("hooks", hooks),
    rules: staying("rules", rules),
  };
  for (const one of deleted) checkUnused(untouched, one);
  const next = accept(state, base.definitions, how.tools.parse);
  if (!("definitions" in next)) {
    const isOwn = how.isBare && next.every((one) => keyOf(one) === keyOf(steps[0]?.result ?? one));
    throw refusedTogether(next, isOwn);
  }
  for (const one of deleted) checkUnused(next.definitions, one);
  return next;
}

function checkCondition(change: Change, before: StoredDefinition | undefined): void {
  const revision = before?.revision ?? 0;
  if (change.ifRevision === undefined || change.ifRevision === revision) return;
  const stands = revision === 0 ? "is not there" : `stands at revision ${revision}`;
  throw new ConflictError(
    "conflict",
    `${change.kind}/${change.name} ${stands}, not at ${change.ifRevision}`,
    { revision },
  );
}

function checkCall(changes: readonly Change[]): void {
  if (changes.length > CHANGES_MAX) {
    throw new LimitError("too-large", `at most ${CHANGES_MAX} changes can be made at once`);
  }
  const seen = new Set<string>();
  for (const change of changes) {
    const key = keyOf(change);
    if (!isName(change.name)) {
      const detail = `${JSON.stringify(change.name.slice(0, 100))} is not ${NAME_FORM}`;
      throw new InvalidError(detail, [{ pointer: `/${change.kind}`, detail }], {
        code: "definition-invalid",
      });
    }
    if (seen.has(key)) {
      const detail = `${key} is there twice`;
      throw new InvalidError(detail, [{ pointer: `/${key}`, detail }], {
        code: "definition-invalid",
      });
    }
    seen.add(key);
  }
}

/** What is kept beside a change is short text that a database takes. */
export function checkNotes(context: ChangeContext): void {
  const { by, why = null, project = null } = context;
  for (const [field, text] of Object.entries({ by, why, project })) {
    if (text === null) continue;
    if (text.length > NOTE_CHARACTERS_MAX || text.includes("\u0000")) {
      throw new InvalidError(`${field} is too long or holds a null character`);
    }
  }
}
