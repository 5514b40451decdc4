/**
 * Parses the document of a rule: defaults filled in, every expression compiled once to see that
 * it is right, every target's bridge found.
 */
import { z } from "zod";
import { targetsMax } from "./limits.ts";
import { PROPERTY_TYPES } from "./set.ts";
import type {
  BridgeAddress,
  JsonObject,
  RetryDocument,
  RuleDocument,
  SetDocument,
  TargetDocument,
} from "./document.ts";
import { compileExpression } from "./expression.ts";
import { isObject, type ParseContext, parsePlace } from "./place.ts";
import { LOAD_KEYS, loadFor, parseLoad, type TargetLoad } from "./load.ts";
import { type Problems, shown } from "./problems.ts";
import { OPTION_KEYS, optionsFor, parseOptions, type TargetOptions } from "./target-options.ts";
import * as shapes from "./shapes.ts";
import { signed } from "./signing.ts";
import { compileTemplate, escapePointer, hasExpression } from "./template.ts";
import { isName, NAME_FORM } from "./units.ts";

/** What an outage, and a message that is refused, get without a word about it. */
const RETRY_DEFAULTS: RetryDocument = {
  maxAgeMs: 3 * 86_400_000,
  attempts: 8,
  delayMinMs: 500,
  delayMaxMs: 3_600_000,
};
/** Attempts at a message that its target refuses; beyond this `maxAge` is what is meant. */
const ATTEMPTS_MAX = 1_000_000;

const retryShape = shapes.strict({
  maxAge: z.union([z.null(), shapes.durationMs]).optional(),
  attempts: z.int().min(1).max(ATTEMPTS_MAX).optional(),
  delayMin: shapes.positiveDurationMs.optional(),
  delayMax: shapes.positiveDurationMs.optional(),
});

const setShape = shapes.strict({
  key: z.unknown().optional(),
  headers: z.record(z.string(), z.unknown()).optional(),
  body: z.unknown().optional(),
  properties: shapes
    .strict(
      Object.fromEntries(Object.keys(PROPERTY_TYPES).map((key) => [key, z.unknown().optional()])),
    )
    .optional(),
});

/** `strict`: what a bridge can't carry whole is not sent; `lenient`: it is, and counted. */
const translationShape = shapes.word(["strict", "lenient"]);

function ruleShape(nowMs: number | null) {
  return shapes.strict({
    from: z.unknown(),
    where: shapes.expression.optional(),
    start: shapes.start(nowMs).optional(),
    order: shapes.word(["partition", "key", "none"]).optional(),
    set: setShape.optional(),
    to: z.unknown(),
    retry: retryShape.optional(),
    limit: z.unknown().optional(),
    concurrency: z.unknown().optional(),
    batch: z.unknown().optional(),
    notBefore: shapes.expression.optional(),
    delay: shapes.durationMs.optional(),
    translation: translationShape.optional(),
    format: z.unknown().optional(),
    echo: z.unknown().optional(),
    onFailure: shapes.word(["dead-letter", "block", "park"]).optional(),
    enabled: z.boolean().optional(),
    sign: z.unknown().optional(),
  });
}

/** Parses a rule; null when something is wrong, which is then among the problems. */
export function parseRule(
  document: JsonObject,
  context: ParseContext,
  problems: Problems,
): RuleDocument | null {
  const shape = ruleShape(context.nowMs ?? null).safeParse(document);
  if (!shape.success) problems.addIssues(document, shape.error.issues);
  const { where, set, from, to, retry } = document;
  if (typeof where === "string") {
    problems.check("/where", () => compileExpression(where, { condition: true }));
  }
  if (isObject(set)) checkSet(set, problems);
  const parsedRetry = parseRetry(retry, RETRY_DEFAULTS, { pointer: "/retry", problems });
  const source = from === undefined ? null : parseFrom(from, context, problems);
  const pace = parsePace(document, { notBefore: null, delayMs: 0 }, { pointer: "", problems });
  const strict = parseTranslation(document, {}, { pointer: "", problems });
  const options = parseOptions(document, null, { pointer: "", problems });
  const load = parseLoad(document, {}, { pointer: "", problems });
  const defaults = { retry: parsedRetry, load, ...pace, ...strict, ...options };
  const places = signed(document, { context, problems });
  const targets = to === undefined ? [] : parseTargets(places, defaults, { context, problems });
  if (!shape.success || problems.any || source === null) return null;
  const { data } = shape;
  return {
    from: source,
    where: data.where ?? null,
    start: data.start ?? "latest",
    order: data.order ?? "partition",
    set: (document["set"] ?? {}) as SetDocument,
    to: targets,
    onFailure: data.onFailure ?? "dead-letter",
    enabled: data.enabled ?? true,
  };
}

/** A header's name goes into protocols that know no quoting: no space, colon or control sign. */
const HEADER_NAME = /^[^\s:\p{Cc}]{1,256}$/u;

function checkSet(set: JsonObject, problems: Problems): void {
  for (const part of ["key", "headers", "body", "properties"]) {
    const value = set[part];
    if (value !== undefined) problems.check(`/set/${part}`, () => compileTemplate(value));
  }
  if (!isObject(set["headers"])) return;
  const seen = new Map<string, string>();
  for (const name of Object.keys(set["headers"])) {
    const pointer = `/set/headers/${escapePointer(name)}`;
    const twin = seen.get(name.toLowerCase());
    if (twin !== undefined) problems.add(pointer, `the same header as ${JSON.stringify(twin)}`);
    seen.set(name.toLowerCase(), name);
    if (!HEADER_NAME.test(name)) {
      problems.add(pointer, "expected a header's name without spaces, colons and control signs");
    }
  }
}

function parseFrom(
  from: JsonObject[string],
  context: ParseContext,
  problems: Problems,
): RuleDocument["from"] | null {
  if (isObject(from)) {
    return parsePlace(from, { end: "source", taken: [] }, { pointer: "/from", problems, context });
  }
  const stream = shapes.readableStream.safeParse(from);
  if (stream.success) return { stream: stream.data };
  problems.add("/from", `expected a stream's name or { bridge: … }, found ${shown(from)}`);
  return null;
}

/** What stands beside the address of a target. */
const TARGET_KEYS: readonly string[] = [
  "name",
  "retry",
  "notBefore",
  "delay",
  "translation",
  ...OPTION_KEYS,
  ...LOAD_KEYS,
];

/** What a rule says for all its targets. */
type TargetDefaults = Pick<TargetDocument, "retry" | "notBefore" | "delayMs" | "strict"> &
  TargetOptions & { readonly load: TargetLoad };

interface Within {
  readonly context: ParseContext;
  readonly problems: Problems;
}

function parseTargets(
  to: JsonObject[string],
  defaults: TargetDefaults,
  within: Within,
): readonly TargetDocument[] {
  const list: readonly JsonObject[string][] = Array.isArray(to) ? to : [to as JsonObject[string]];
  const { problems } = within;
  if (list.length === 0) problems.add("/to", "expected at least one target, found an empty list");
  if (list.length > targetsMax) problems.add("/to", `expected at most ${targetsMax} targets`);
  const targets: TargetDocument[] = [];
  const names = new Set<string>();
  for (const [index, value] of list.slice(0, targetsMax).entries()) {
    const pointer = Array.isArray(to) ? `/to/${index}` : "/to";
    const target = parseTarget(value, defaults, { ...within, pointer });
    if (target === null) continue;
    if (names.has(target.name)) {
      const detail = `another target is called ${JSON.stringify(target.name)}; give one a name`;
      problems.add(pointer, detail);
    }
    names.add(target.name);
    targets.push(target);
  }
  return targets;
}

function parseTarget(
  value: JsonObject[string],
  defaults: TargetDefaults,
  within: Within & { readonly pointer: string },
): TargetDocument | null {
  const { pointer, problems } = within;
  if (!isObject(value) || ("bridge" in value && "stream" in value)) {
    problems.add(pointer, `expected { bridge: … } or { stream: … }, found ${shown(value)}`);
    return null;
  }
  const { name } = value;
  if (name !== undefined && (typeof name !== "string" || !isName(name))) {
    problems.add(`${pointer}/name`, `expected ${NAME_FORM}, found ${shown(name)}`);
  }
  const at = { pointer: `${pointer}/retry`, problems };
  const retry = parseRetry(value["retry"], defaults.retry, at);
  const pace = {
    ...parsePace(value, defaults, { pointer, problems }),
    ...parseTranslation(value, defaults, { pointer, problems }),
  };
  const options = parseOptions(value, defaults, { pointer, problems });
  const to =
    "stream" in value ? parseStreamTarget(value, within) : parseBridgeTarget(value, within);
  const spread = to !== null && "stream" in to ? parseFanOut(value, within) : {};
  const load = parseLoad(value, defaults.load, { pointer, problems });
  if (to === null) return null;
  const written = "stream" in to ? `stream ${to.stream}` : `${to.bridge} ${to.text}`;
  const fitting = optionsFor(to, options, { ...within, isOwn: "format" in value });
  const isEvents = fitting.format !== undefined;
  const loaded = loadFor(to, load, { ...within, isEvents, isOwn: "batch" in value });
  const title = typeof name === "string" ? name : written;
  return { name: title, to: loaded.to, ...spread, retry, ...pace, ...fitting, ...loaded.load };
}

function parseBridgeTarget(
  value: JsonObject,
  within: Within & { readonly pointer: string },
): BridgeAddress | null {
  if ("each" in value) {
    const detail = "each works for streams: fan out into one, and from there to the bridge";
    within.problems.add(`${within.pointer}/each`, detail);
  }
  return parsePlace(value, { end: "sink", taken: ["each", ...TARGET_KEYS] }, within);
}

function parseStreamTarget(
  value: JsonObject,
  { pointer, problems }: Within & { readonly pointer: string },
): { readonly stream: string } | null {
  const known = ["stream", "each", "key", ...TARGET_KEYS];
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    problems.add(`${pointer}/${escapePointer(key)}`, shapes.unknownKey(key, known));
  }
  const { stream } = value;
  if (typeof stream !== "string" || (!hasExpression(stream) && !isName(stream))) {
    const detail = `expected a stream's name: ${NAME_FORM}; found ${shown(stream)}`;
    problems.add(`${pointer}/stream`, detail);
    return null;
  }
  const item = "each" in value;
  problems.check(`${pointer}/stream`, () => compileTemplate(stream, { item }));
  return { stream };
}

/** A stream target's `each` and `key`. */
function parseFanOut(
  { each, key }: JsonObject,
  { pointer, problems }: Within & { readonly pointer: string },
): Pick<TargetDocument, "each" | "key"> {
  let found: Pick<TargetDocument, "each" | "key"> = {};
  if (each !== undefined) {
    const source = shapes.expression.safeParse(each);
    if (source.success) {
      found = { each: source.data };
      problems.check(`${pointer}/each`, () => compileExpression(source.data));
    } else problems.addIssues(each, source.error.issues, `${pointer}/each`);
  }
  if (key === undefined) return found;
  if (typeof key !== "string") {
    problems.add(`${pointer}/key`, `expected text with \${CEL}, found ${shown(key)}`);
    return found;
  }
  const item = each !== undefined;
  problems.check(`${pointer}/key`, () => compileTemplate(key, { item }));
  return { ...found, key };
}

/** When messages may go out: a rule's or target's own, else the defaults. */
function parsePace(
  value: JsonObject,
  defaults: Pick<TargetDefaults, "notBefore" | "delayMs">,
  { pointer, problems }: { readonly pointer: string; readonly problems: Problems },
): Pick<TargetDefaults, "notBefore" | "delayMs"> {
  let { notBefore, delayMs } = defaults;
  if (value["notBefore"] !== undefined) {
    const source = shapes.expression.safeParse(value["notBefore"]);
    if (source.success) {
      notBefore = source.data;
      problems.check(`${pointer}/notBefore`, () => compileExpression(source.data));
    } else if (pointer !== "")
      problems.addIssues(value["notBefore"], source.error.issues, `${pointer}/notBefore`);
  }
  if (value["delay"] !== undefined) {
    const delay = shapes.durationMs.safeParse(value["delay"]);
    if (delay.success) delayMs = delay.data;
    else if (pointer !== "")
      problems.addIssues(value["delay"], delay.error.issues, `${pointer}/delay`);
  }
  return { notBefore, delayMs };
}

/** Whether a target is strict: as it says, else as its rule does. */
function parseTranslation(
  { translation }: JsonObject,
  defaults: Pick<TargetDocument, "strict">,
  { pointer, problems }: { readonly pointer: string; readonly problems: Problems },
): Pick<TargetDocument, "strict"> {
  if (translation === undefined) return defaults.strict === true ? { strict: true } : {};
  const word = translationShape.safeParse(translation);
  if (word.success) return word.data === "strict" ? { strict: true } : {};
  // The rule's own is part of its shape, which has said it already.
  if (pointer !== "") {
    problems.addIssues(translation, word.error.issues, `${pointer}/translation`);
  }
  return {};
}

/** The defaults with what a document names in their place. */
function parseRetry(
  value: unknown,
  defaults: RetryDocument,
  { pointer, problems }: { readonly pointer: string; readonly problems: Problems },
): RetryDocument {
  if (value === undefined) return defaults;
  const shape = retryShape.safeParse(value);
  if (!shape.success) {
    // The rule's own retry is part of its shape, which has said it already.
    if (pointer !== "/retry") problems.addIssues(value, shape.error.issues, pointer);
    return defaults;
  }
  const { maxAge, attempts, delayMin, delayMax } = shape.data;
  const retry: RetryDocument = {
    maxAgeMs: maxAge === undefined ? defaults.maxAgeMs : maxAge,
    attempts: attempts ?? defaults.attempts,
    delayMinMs: delayMin ?? Math.min(defaults.delayMinMs, delayMax ?? defaults.delayMinMs),
    delayMaxMs: delayMax ?? Math.max(defaults.delayMaxMs, delayMin ?? defaults.delayMaxMs),
  };
  if (retry.delayMinMs > retry.delayMaxMs) {
    problems.add(`${pointer}/delayMin`, "delayMin is longer than delayMax");
  }
  return retry;
}
