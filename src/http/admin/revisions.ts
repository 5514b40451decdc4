/**
 * `/api/KIND/:name/revisions` and `/rollback`: what ever stood under a name, who changed it, when
 * and why, and the way back. Revisions are never changed: a rollback makes a new one.
 */
import { ConflictError, NotFoundError } from "../../errors.ts";
import { revisionItemsMax } from "../../rules/limits.ts";
import type { Change, Json, Kind } from "../../rules/document.ts";
import { diffValues } from "../../rules/diff.ts";
import type { StoredRevision } from "../../rules/store/state.ts";
import { Query, refused } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { conditionOf, type DefinitionCall, getDefinition, jsonResponse } from "./definitions.ts";
import { documentOf } from "./document-body.ts";

/** The definition whose past is asked for. */
export interface RevisionsCall {
  readonly kind: Kind;
  readonly name: string;
  readonly url: string;
}

/**
 * The revisions of a name, newest first, each with the count of lines that it changed.
 * @throws NotFoundError nothing ever stood there. @throws DatabaseError the database is away.
 */
export async function listRevisions(
  call: RevisionsCall,
  services: HttpServices,
): Promise<Response> {
  const query = new Query(call.url, ["after", "max"]);
  const after = query.count("after", { min: 1, max: Number.MAX_SAFE_INTEGER });
  const max = query.count("max", { min: 1, max: revisionItemsMax }) ?? revisionItemsMax;
  const all = await revisionsOf(call, services);
  const older = after === null ? all : all.filter(({ revision }) => revision < after);
  const page = older.slice(0, max);
  const items = page.map((revision) => {
    const lines = diffOf(revision, before(all, revision));
    const count = (sign: string): number => lines.filter((line) => line.startsWith(sign)).length;
    return { ...noteOf(revision), linesAdded: count("+"), linesRemoved: count("-") };
  });
  const next = older.length > page.length ? String(page.at(-1)?.revision ?? "") : null;
  return jsonResponse({ items, next });
}

/**
 * One revision with its document, and its difference to the one before it, or to `?against=`.
 * @throws NotFoundError there is no such revision. @throws DatabaseError the database is away.
 */
export async function getRevision(
  call: RevisionsCall,
  number: string,
  services: HttpServices,
): Promise<Response> {
  const query = new Query(call.url, ["against"]);
  const against = query.count("against", { min: 1, max: Number.MAX_SAFE_INTEGER });
  const all = await revisionsOf(call, services);
  const revision = revisionAt(all, call, /^\d{1,15}$/.test(number) ? Number(number) : -1);
  const other = against === null ? before(all, revision) : revisionAt(all, call, against);
  return jsonResponse({
    ...noteOf(revision),
    document: revision.document,
    against: other?.revision ?? null,
    diff: diffOf(revision, other),
  });
}

/**
 * Puts an earlier document in place, as a new revision. The body may say `to` (default: what stood
 * before the latest change) and `why`. What was changed meanwhile by another is not overwritten.
 * @throws ConflictError `conflict`. @throws InvalidError that document isn't taken any more, such
 * as one whose stored secret is gone: it is named.
 */
export async function rollBack(
  call: DefinitionCall,
  body: Uint8Array,
  services: HttpServices,
): Promise<Response> {
  const { kind, name, principal, headers } = call;
  const wanted = rollbackOf(body, headers.get("content-type") ?? "");
  const all = await revisionsOf(call, services);
  const [standing] = all;
  const target = wanted.to === null ? previous(all, call) : revisionAt(all, call, wanted.to);
  if (target.document === null) {
    throw refused(
      "to",
      `revision ${target.revision} is a deletion: delete ${kind}/${name} instead`,
    );
  }
  const seen = standing === undefined || standing.document === null ? 0 : standing.revision;
  const { ifRevision = seen } = conditionOf(call, services);
  const change: Change = { kind, name, document: target.document, ifRevision };
  const context = {
    by: callerText(principal),
    why: wanted.why ?? `rollback to revision ${target.revision}`,
    ...(seen === 0 ? { project: target.project } : {}),
  };
  await services.gateway.change([change], context);
  return getDefinition(kind, name, services);
}

async function revisionsOf(
  { kind, name }: Pick<RevisionsCall, "kind" | "name">,
  { gateway }: HttpServices,
): Promise<readonly StoredRevision[]> {
  const all = await gateway.revisions(kind, name);
  if (all.length === 0) throw new NotFoundError(`there is no ${kind}/${name.slice(0, 120)}`);
  return all;
}

function revisionAt(
  all: readonly StoredRevision[],
  { kind, name }: Pick<RevisionsCall, "kind" | "name">,
  number: number,
): StoredRevision {
  const found = all.find(({ revision }) => revision === number);
  if (found !== undefined) return found;
  const newest = all[0]?.revision ?? 0;
  throw new NotFoundError(`${kind}/${name} has no revision ${number}; the newest is ${newest}`);
}

function before(
  all: readonly StoredRevision[],
  { revision }: StoredRevision,
): StoredRevision | undefined {
  return all.find((each) => each.revision < revision);
}

/** What stood before the latest change: the newest other document. */
function previous(
  all: readonly StoredRevision[],
  { kind, name }: Pick<RevisionsCall, "kind" | "name">,
): StoredRevision {
  const current = JSON.stringify(all[0]?.document);
  const found = all
    .slice(1)
    .find(({ document }) => document !== null && JSON.stringify(document) !== current);
  if (found !== undefined) return found;
  throw new ConflictError("conflict", `${kind}/${name} has no earlier document to go back to`, {
    revision: all[0]?.revision ?? 0,
  });
}

function diffOf(revision: StoredRevision, other: StoredRevision | undefined): readonly string[] {
  return diffValues(other?.document ?? null, revision.document);
}

function noteOf(stored: StoredRevision): object {
  const { revision, version, by, why, project, atMs, document } = stored;
  return { revision, version, by, why, project, at: atMs, deleted: document === null };
}

interface Rollback {
  readonly to: number | null;
  readonly why: string | null;
}

function rollbackOf(body: Uint8Array, contentType: string): Rollback {
  if (body.length === 0) return { to: null, why: null };
  const members = documentOf(body, contentType);
  for (const key of Object.keys(members)) {
    if (key !== "to" && key !== "why") throw refused(key, "unknown member; known are to and why");
  }
  const to: Json | undefined = members["to"];
  const why: Json | undefined = members["why"];
  if (to !== undefined && to !== null && !Number.isSafeInteger(to)) {
    throw refused("to", "expected the number of a revision");
  }
  if (why !== undefined && why !== null && typeof why !== "string") {
    throw refused("why", "expected text");
  }
  return { to: typeof to === "number" ? to : null, why: typeof why === "string" ? why : null };
}
