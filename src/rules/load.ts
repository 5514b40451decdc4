/**
 * How much a target is given at once: `limit` (so many in so long), `concurrency` (so many under
 * way) and `batch` (how many go together). A rule says it for each of its targets, a target for
 * itself. Each target has its own limit, which all partitions of the rule's stream share.
 */
import { z } from "zod";
import {
  batchWaitMsMax,
  targetBatchBytesMax,
  targetBatchMessagesMax,
  targetConcurrencyMax,
  targetRateMax,
} from "./limits.ts";
import type { BatchDocument, JsonObject, TargetDocument } from "./document.ts";
import { findModule, type ParseContext } from "./place.ts";
import { expected, oneOf, type Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { escapePointer, hasExpression } from "./template.ts";
import { parseRate, RATE_FORM } from "./units.ts";

/** The keys that this file parses. */
export const LOAD_KEYS: readonly string[] = ["limit", "concurrency", "batch"];

/** What they come to. */
export type TargetLoad = Pick<TargetDocument, "limit" | "concurrency" | "batch">;

/** What a batch is bounded by that names no bound of its own. */
const BATCH_MESSAGES = 100;
const BATCH_BYTES = 1024 * 1024;

const CONCURRENCY_FORM = `a number from 1 to ${targetConcurrencyMax}`;

const batchShape = shapes.strict({
  messages: z.int().min(1).max(targetBatchMessagesMax).optional(),
  bytes: shapes.byteCount
    .refine(
      (bytes) => bytes >= 1 && bytes <= targetBatchBytesMax,
      `expected 1 to ${targetBatchBytesMax} bytes`,
    )
    .optional(),
  wait: shapes.durationMs
    .refine((ms) => ms <= batchWaitMsMax, `expected at most ${batchWaitMsMax / 1000} s`)
    .optional(),
  as: z.unknown().optional(),
});

interface At {
  readonly pointer: string;
  readonly problems: Problems;
}

/** What a rule or a target names, else the defaults. `pointer` is to what holds it. */
export function parseLoad(value: JsonObject, defaults: TargetLoad, at: At): TargetLoad {
  const load: { -readonly [Name in keyof TargetLoad]: TargetLoad[Name] } = { ...defaults };
  const { limit, concurrency, batch } = value;
  const { pointer, problems } = at;
  if (limit !== undefined) {
    const rate = parseRate(limit, targetRateMax);
    if (rate === null) problems.add(`${pointer}/limit`, expected(RATE_FORM, limit));
    else load.limit = rate;
  }
  if (concurrency !== undefined) {
    const count = z.int().min(1).max(targetConcurrencyMax).safeParse(concurrency);
    if (count.success) load.concurrency = count.data;
    else problems.add(`${pointer}/concurrency`, expected(CONCURRENCY_FORM, concurrency));
  }
  if (batch === false) delete load.batch;
  else if (batch !== undefined) {
    const parsed = parseBatch(batch, at);
    if (parsed !== null) load.batch = parsed;
  }
  return load;
}

function parseBatch(batch: unknown, { pointer, problems }: At): BatchDocument | null {
  const shape = batchShape.safeParse(batch);
  if (!shape.success) {
    problems.addIssues(batch as JsonObject[string], shape.error.issues, `${pointer}/batch`);
    return null;
  }
  const { messages, bytes, wait, as } = shape.data;
  if (as !== undefined && typeof as !== "string") {
    problems.add(`${pointer}/batch/as`, expected("a word such as json", as));
    return null;
  }
  return {
    messages: messages ?? BATCH_MESSAGES,
    bytes: bytes ?? BATCH_BYTES,
    waitMs: wait ?? 0,
    ...(as === undefined ? {} : { as }),
  };
}

/**
 * The load as it is for one target, and the target as it has to be opened for it: where messages
 * go together as one, its address is the same for all of them and says in which form.
 */
export function loadFor(
  to: TargetDocument["to"],
  load: TargetLoad,
  { pointer, problems, context, isEvents, isOwn }: LoadAt,
): { readonly to: TargetDocument["to"]; readonly load: TargetLoad } {
  const { batch } = load;
  if (batch === undefined) return { to, load };
  const forms = "stream" in to ? undefined : findModule(context.modules, to.kind)?.batchForms;
  if (forms === undefined || "stream" in to) {
    if (batch.as !== undefined && isOwn) {
      problems.add(`${pointer}/batch/as`, "only where messages go as one request: HTTP targets");
    }
    const { as: _, ...plain } = batch;
    return { to, load: { ...load, batch: plain } };
  }
  for (const [field, value] of Object.entries(to.fields)) {
    if (!holdsExpression(value)) continue;
    const detail = "a batch is one request: its address is the same for all, without ${…}";
    problems.add(`${pointer}/${escapePointer(field)}`, detail);
  }
  const wrong = formProblem(batch.as, forms, isEvents);
  if (wrong !== null) problems.add(isOwn ? `${pointer}/batch/as` : pointer, wrong);
  const as = isEvents ? "cloudevents" : (batch.as ?? forms[0] ?? "");
  return {
    to: { ...to, fixed: { ...to.fixed, batch: as } },
    load: { ...load, batch: { ...batch, as } },
  };
}

/** Why a form can't be had, or null. */
function formProblem(
  as: string | undefined,
  forms: readonly string[],
  isEvents: boolean,
): string | null {
  if (as === undefined) return null;
  if (isEvents) return "events go as a batch of CloudEvents: leave out as";
  return forms.includes(as) ? null : expected(oneOf(forms), as);
}

interface LoadAt extends At {
  readonly context: ParseContext;
  /** Its messages go out as CloudEvents. */
  readonly isEvents: boolean;
  /** The target names the batch itself. */
  readonly isOwn: boolean;
}

function holdsExpression(value: unknown): boolean {
  if (typeof value === "string") return hasExpression(value);
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).some(holdsExpression);
}
