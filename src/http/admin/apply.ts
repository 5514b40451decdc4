/**
 * `POST /api/apply`: a whole file of definitions, all of it or nothing. `prune` deletes what the
 * same project made before and no longer names; `dryRun` answers what would happen.
 */
import { InvalidError } from "../../errors.ts";
import { type Change, type HookDocument, KINDS } from "../../rules/document.ts";
import { type DefinitionsFile, parseDefinitions } from "../../rules/parse.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { Query } from "../request.ts";
import { callerText, type ChangedFace, type HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";
import { dataOf } from "./document-body.ts";
import { notVerified } from "./views.ts";

/** Who applies, and how. */
export interface ApplyCall {
  readonly url: string;
  readonly contentType: string;
  readonly principal: Principal;
}

/** Applies a file. Throws as `Store.change`. */
export async function applyResponse(
  call: ApplyCall,
  body: Uint8Array,
  services: HttpServices,
): Promise<Response> {
  const query = new Query(call.url, ["dryRun", "prune"]);
  const dryRun = query.flag("dryRun");
  const file = parseDefinitions(dataOf(body, call.contentType));
  const changes = [...file.documents, ...(query.flag("prune") ? pruned(file, services) : [])];
  const context = { by: callerText(call.principal), ...projectOf(file) };
  const changed = await changedBy(changes, { dryRun, context, services });
  const { definitions, results } = changed;
  return jsonResponse({
    version: definitions.version,
    dryRun,
    results,
    warnings: warningsOf(changed, services),
  });
}

interface How {
  readonly dryRun: boolean;
  readonly context: { readonly by: string; readonly project?: string | null };
  readonly services: HttpServices;
}

async function changedBy(changes: readonly Change[], how: How): Promise<ChangedFace> {
  const { gateway } = how.services;
  if (changes.length === 0) return { definitions: gateway.definitions(), results: [] };
  try {
    return how.dryRun
      ? gateway.preview(changes, how.context)
      : await gateway.change(changes, how.context);
  } catch (error) {
    throw error instanceof InvalidError ? withFilePointers(error, changes) : error;
  }
}

/** A call with one change has pointers into its document; those of a file begin at the file. */
function withFilePointers(error: InvalidError, changes: readonly Change[]): InvalidError {
  const [only] = changes;
  if (changes.length !== 1 || only === undefined) return error;
  const base = `/${only.kind}/${only.name}`;
  const errors = error.errors.map((detail) => {
    const isWhole = detail.pointer.startsWith(base);
    return isWhole ? detail : { ...detail, pointer: `${base}${detail.pointer}` };
  });
  return new InvalidError(error.message, errors, { code: "definition-invalid", cause: error });
}

function projectOf({ project }: DefinitionsFile): { readonly project?: string } {
  return project === null ? {} : { project };
}

/** What the file's project has made and the file does not name, users before what they use. */
function pruned(file: DefinitionsFile, { gateway }: HttpServices): readonly Change[] {
  const { project, documents } = file;
  if (project === null) {
    const detail = "prune deletes what the file's project made: the file names no project";
    throw new InvalidError(detail, [{ pointer: "/project", detail }]);
  }
  const named = new Set(documents.map(({ kind, name }) => `${kind}/${name}`));
  const definitions = gateway.definitions();
  return KINDS.toReversed().flatMap((kind) =>
    [...definitions[kind].values()]
      .filter((one) => one.project === project && !named.has(`${kind}/${one.name}`))
      .map(({ name }): Change => ({ kind, name, document: null })),
  );
}

function warningsOf({ definitions, results }: ChangedFace, { gateway }: HttpServices): string[] {
  return results.flatMap(({ kind, name, outcome }) => {
    if (outcome === "deleted") return [];
    const hook = kind === "hooks" ? definitions.hooks.get(name) : undefined;
    if (hook !== undefined) return openHook(name, hook.parsed);
    const stream = kind === "streams" ? definitions.streams.get(name) : undefined;
    const held = gateway.streams.find(name);
    if (stream === undefined || held === undefined || held.isEmpty) return [];
    const { partitions } = stream.parsed;
    if (held.partitions.length === partitions) return [];
    return [
      `stream ${name} holds messages in ${held.partitions.length} partitions: ${partitions} can't take effect`,
    ];
  });
}

function openHook(name: string, hook: HookDocument): string[] {
  return hook.verify === null ? [notVerified(name)] : [];
}
