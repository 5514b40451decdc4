/**
 * What every bridge needs to read its own documents: zod schemas for the members that all kinds
 * share, and one function that turns zod's findings into our InvalidError.
 * Parsing connects nowhere and resolves nothing: a text may still hold `${env:NAME}`; `resolveAll`
 * replaces such references in a parsed configuration when the bridge connects.
 */
import { z } from "zod";
import { type InvalidDetail, InvalidError } from "../src/errors.ts";

/**
 * A text that may hold `${env:…}`, `${file:…}` or `${secret:…}`; not empty. Resolved at connect.
 */
export const referenceText = z.string().min(1, "expected a text that is not empty");

/** `tls: true`, or the parts of it as PEM text. */
export const tlsSchema = z.union([
  z.boolean(),
  z.strictObject({
    ca: referenceText.optional(),
    cert: referenceText.optional(),
    key: referenceText.optional(),
  }),
]);
export type Tls = z.infer<typeof tlsSchema>;

/**
 * The members that every kind of bridge has, to be spread into its own `z.strictObject`.
 * `url` and `urls` are one thing said in two ways: `urlsOf` gives the list.
 */
export const connectionShape = {
  url: referenceText.optional(),
  urls: z.array(referenceText).min(1, "expected at least one URL").optional(),
  username: referenceText.optional(),
  password: referenceText.optional(),
  tls: tlsSchema.optional(),
};

const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * A duration as the documents write it (`500ms`, `2s`, `5m`, `1h`, `7d`, bare milliseconds) → ms.
 */
export const durationMs = z.union([z.string(), z.number()]).transform((value, context) => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(String(value).trim());
  if (match !== null) return Number(match[1]) * (durationUnits[match[2] ?? "ms"] ?? 1);
  context.addIssue({ code: "custom", message: "expected a duration such as 500ms, 2s, 5m or 7d" });
  return z.NEVER;
});

const DOLLAR_BRACE = "${";

/** Whether an address text is a template, rendered for each message. */
export function isTemplate(text: string): boolean {
  return text.includes(DOLLAR_BRACE);
}

/**
 * Checks an input against a schema and returns what the schema made of it.
 * @throws InvalidError with a JSON pointer for each problem; an unknown key names the nearest known
 * one. Correct the document: the same call cannot succeed.
 */
export function parseDocument<Schema extends z.ZodType>(
  schema: Schema,
  input: unknown,
): z.output<Schema> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const errors = result.error.issues.flatMap((issue) => detailsOf(schema, issue, []));
  throw invalid(errors);
}

/** The InvalidError of a list of findings: its text is the first one with its place. */
export function invalid(errors: readonly InvalidDetail[]): InvalidError {
  const first = errors[0];
  const place = first === undefined || first.pointer === "" ? "" : `${first.pointer}: `;
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : "";
  return new InvalidError(`${place}${first?.detail ?? "invalid"}${more}`, errors);
}

/**
 * The list that `url` and `urls` of a document come to: exactly one of them must be there.
 * @throws InvalidError when none or both are given.
 */
export function urlsOf(input: {
  readonly url?: string | undefined;
  readonly urls?: readonly string[] | undefined;
}): readonly string[] {
  if (input.url !== undefined && input.urls !== undefined) {
    throw invalid([{ pointer: "/urls", detail: "give either url or urls, not both" }]);
  }
  const urls = input.urls ?? (input.url === undefined ? [] : [input.url]);
  if (urls.length === 0) throw invalid([{ pointer: "/url", detail: "expected url or urls" }]);
  return urls;
}

/**
 * A copy of a parsed configuration with the references in every text resolved, at any depth.
 * @throws InvalidError when a reference can't be resolved.
 */
export async function resolveAll<T>(
  value: T,
  resolve: (text: string) => Promise<string>,
): Promise<T> {
  return (await resolved(value, resolve)) as T;
}

async function resolved(
  value: unknown,
  resolve: (text: string) => Promise<string>,
): Promise<unknown> {
  if (typeof value === "string") return isTemplate(value) ? await resolve(value) : value;
  if (Array.isArray(value)) return await Promise.all(value.map((item) => resolved(item, resolve)));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(
    async ([name, item]) => [name, await resolved(item, resolve)] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

function detailsOf(schema: z.ZodType, issue: Issue, base: Path): InvalidDetail[] {
  const path = [...base, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(schemasAt([schema], path));
    return issue.keys.map((key) => ({
      pointer: pointerOf([...path, key]),
      detail: `unknown key ${JSON.stringify(key)}${suggestion(key, known)}`,
    }));
  }
  if (issue.code === "invalid_union") {
    const closest = closestBranch(issue.errors);
    if (closest !== null) return closest.flatMap((inner) => detailsOf(schema, inner, path));
  }
  return [{ pointer: pointerOf(path), detail: sentenceOf(issue) }];
}

/** Of a union's branches the one that got deeper than its first type check, when there is one. */
function closestBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | null {
  const deeper = branches.filter((issues) =>
    issues.every((issue) => issue.path.length > 0 || issue.code === "unrecognized_keys"),
  );
  return deeper[0] ?? null;
}

function sentenceOf(issue: Issue): string {
  if (issue.code === "invalid_value") {
    return `expected ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  }
  if (issue.code === "invalid_type") {
    const missing = issue.input === undefined && issue.message.endsWith("received undefined");
    return missing ? `missing: expected ${issue.expected}` : `expected ${issue.expected}`;
  }
  if (issue.code === "invalid_union") return unionSentence(issue.errors);
  return issue.message.charAt(0).toLowerCase() + issue.message.slice(1);
}

function unionSentence(branches: readonly (readonly Issue[])[]): string {
  const kinds = branches.flatMap((issues) =>
    issues.flatMap((issue) =>
      issue.code === "invalid_type" || issue.code === "invalid_value" ? [sentenceOf(issue)] : [],
    ),
  );
  const unique = [...new Set(kinds.map((text) => text.replace(/^(missing: )?expected /, "")))];
  return unique.length === 0 ? "has none of the allowed forms" : `expected ${unique.join(" or ")}`;
}

function pointerOf(path: Path): string {
  return path
    .map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}

/** All schemas that may describe the value at a path, unions and wrappers followed. */
function schemasAt(schemas: readonly unknown[], path: Path): readonly unknown[] {
  let current = schemas.flatMap(unwrapped);
  for (const part of path) {
    current = current.flatMap((schema) => childrenOf(schema, part)).flatMap(unwrapped);
  }
  return current;
}

function unwrapped(schema: unknown): readonly unknown[] {
  if (schema instanceof z.ZodUnion) return schema.options.flatMap(unwrapped);
  if (schema instanceof z.ZodPipe) return unwrapped(schema.in);
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault
  ) {
    return unwrapped(schema.unwrap());
  }
  return [schema];
}

function childrenOf(schema: unknown, part: PropertyKey): readonly unknown[] {
  if (schema instanceof z.ZodArray) return [schema.element];
  if (schema instanceof z.ZodRecord) return [schema.valueType];
  if (schema instanceof z.ZodObject) {
    const child: unknown = (schema.shape as Record<PropertyKey, unknown>)[part];
    return child === undefined ? [] : [child];
  }
  return [];
}

function knownKeys(schemas: readonly unknown[]): readonly string[] {
  return schemas.flatMap((schema) =>
    schema instanceof z.ZodObject ? Object.keys(schema.shape) : [],
  );
}

function suggestion(key: string, known: readonly string[]): string {
  if (known.length === 0) return "";
  const nearest = known
    .map((name) => ({ name, distance: editDistance(key.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
  if (nearest !== undefined && nearest.distance <= Math.max(2, Math.ceil(key.length / 3))) {
    return `: did you mean ${JSON.stringify(nearest.name)}?`;
  }
  return `: known are ${known.join(", ")}`;
}

/** Levenshtein's distance, one row kept. Names are short, so the square costs nothing. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
