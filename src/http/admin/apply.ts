/**
 * `POST /api/apply`: a whole file of definitions, all of it or nothing. `prune` deletes what the
 * same project made before and no longer names; `dryRun` answers what would happen: a difference
 * for each definition and, with `preview`, what changed rules would do to recorded messages.
 */
import { InvalidError, LimitError } from "../../errors.ts";
import { dryRunMessagesMax, dryRunPreviewsMax } from "../../rules/limits.ts";
import { diffValues } from "../../rules/diff.ts";
import { type Change, type Definitions, type HookDocument, KINDS } from "../../rules/document.ts";
import { type DefinitionsFile, parseDefinitions } from "../../rules/parse.ts";
import type { PreviewCounts, PreviewEvent } from "../../rules/preview.ts";
import type { ChangeResult } from "../../rules/store/change.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { hookTrouble } from "../hook-proof.ts";
import { Query } from "../request.ts";
import { callerText, type ChangedFace, type HttpContext, type HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";
import { dataOf } from "./document-body.ts";
import { agoOf, rehearse } from "./rehearse.ts";
import { notVerified } from "./views.ts";

/** Who applies, and how. */
export interface ApplyCall {
  readonly url: string;
  readonly contentType: string;
  readonly principal: Principal;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
}

/** Applies a file. Throws as `Store.change`. */
export async function applyResponse(
  call: ApplyCall,
  body: Uint8Array,
  context: HttpContext,
): Promise<Response> {
  const query = new Query(call.url, ["dryRun", "prune", "why", "preview"]);
  const dryRun = query.flag("dryRun");
  const last = query.text("preview");
  const from = last === null ? null : agoOf(last);
  const file = parseDefinitions(dataOf(body, call.contentType));
  const changes = [...file.documents, ...(query.flag("prune") ? pruned(file, context) : [])];
  const why = query.text("why");
  const noted = { by: callerText(call.principal), why, ...projectOf(file) };
  const before = context.gateway.definitions();
  const changed = await changedBy(changes, { dryRun, context: noted, services: context });
  const warnings = [
    ...warningsOf(changed, context),
    ...(dryRun ? [] : await troubledHooks(changed, context)),
  ];
  const { definitions } = changed;
  const results = dryRun
    ? await rehearsed(changed, { before, from, signal: call.signal, context, warnings })
    : changed.results;
  return jsonResponse({ version: definitions.version, dryRun, results, warnings });
}

interface How {
  readonly dryRun: boolean;
  readonly context: {
    readonly by: string;
    readonly why: string | null;
    readonly project?: string | null;
  };
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

/**
 * What the file's project has made and the file does not name, users before what they use. What
 * was changed meanwhile is not deleted: its revision is a condition.
 */
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
      .map(({ name, revision }): Change => ({ kind, name, document: null, ifRevision: revision })),
  );
}

/** What became, or would become, of one definition. */
interface Rehearsed extends ChangeResult {
  readonly diff: readonly string[];
  /** Of rules that would change: what they would do to recorded messages; null: not looked at. */
  readonly preview?: PreviewCounts | null;
}

interface DryRun {
  readonly before: Definitions;
  /** Null: no previews are wanted. */
  readonly from: string | null;
  readonly signal: AbortSignal;
  readonly context: HttpContext;
  readonly warnings: string[];
}

async function rehearsed(changed: ChangedFace, run: DryRun): Promise<readonly Rehearsed[]> {
  const results = changed.results.map((result): Rehearsed => {
    const { kind, name } = result;
    const old = run.before[kind].get(name)?.document ?? null;
    const young = result.outcome === "deleted" ? null : changed.definitions[kind].get(name);
    return { ...result, diff: diffValues(old, young?.document ?? null) };
  });
  const rules = results.filter(({ kind, outcome }) => kind === "rules" && outcome !== "same");
  if (run.from === null || rules.length === 0) return results;
  const counts = await previews(rules.slice(0, dryRunPreviewsMax), changed.definitions, run);
  if (rules.length > dryRunPreviewsMax) {
    run.warnings.push(`only the first ${dryRunPreviewsMax} changed rules were previewed`);
  }
  return results.map((result) => {
    if (!rules.includes(result)) return result;
    return { ...result, preview: counts.get(result.name) ?? null };
  });
}

async function previews(
  rules: readonly Rehearsed[],
  after: Definitions,
  { before, from, signal, context, warnings }: DryRun,
): Promise<ReadonlyMap<string, PreviewCounts>> {
  const found = new Map<string, PreviewCounts>();
  const both = AbortSignal.any([signal, context.stopping]);
  const window = { from, to: null, limit: dryRunMessagesMax };
  try {
    using _slot = context.previews.take();
    for (const { name } of rules) {
      const run = await rehearse({ name, before, after }, window, { context, signal: both });
      const counts = await countsOf(run);
      if (counts === null) break;
      found.set(name, counts);
      context.telemetry.previewed(counts.messages);
    }
  } catch (error) {
    // The dry run itself stands: its previews are only left out.
    if (!(error instanceof LimitError)) throw error;
    warnings.push(`no previews: ${error.message}`);
  }
  return found;
}

/** The counts of a preview; null when it was aborted. */
async function countsOf(run: AsyncGenerator<PreviewEvent, void>): Promise<PreviewCounts | null> {
  for await (const event of run) if ("result" in event) return event.result.counts;
  return null;
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

/** Hooks that answer 503 as things are: best heard of by who has just made them. */
async function troubledHooks(
  { results }: ChangedFace,
  { gateway, config }: HttpServices,
): Promise<string[]> {
  const warnings: string[] = [];
  for (const { kind, name, outcome } of results) {
    const hook = kind === "hooks" && outcome !== "deleted" ? gateway.hook(name) : undefined;
    if (hook === undefined) continue;
    await hook.verifier?.settled();
    const trouble = hookTrouble(hook, config);
    if (trouble !== null)
      warnings.push(`hook ${name} answers 503 until this is mended: ${trouble}`);
  }
  return warnings;
}

function openHook(name: string, hook: HookDocument): string[] {
  return hook.verify === null ? [notVerified(name)] : [];
}
