/**
 * References in the texts of documents: `${env:NAME}`, `${file:PATH}` and `${secret:PATH}`.
 * They are resolved when used and never stored or shown resolved. Any other `${…}` is CEL and is
 * left alone.
 */
import { InvalidError } from "../../errors.ts";
import type { Json } from "../document.ts";

/** Where the values come from. Undefined and null mean: not there. */
export interface ReferenceSources {
  readonly env: (name: string) => string | undefined;
  readonly file: (path: string) => Promise<string | null>;
  readonly secret: (path: string) => string | null;
}

/** One reference within a text. */
export interface Reference {
  readonly from: "env" | "file" | "secret";
  readonly name: string;
}

const pattern = /\$\{(env|file|secret):([^}]*)\}/g;

/** The gateway's own keys: no definition may carry them to somewhere else. */
const ownVariables: ReadonlySet<string> = new Set(["ISTHMUS_SECRET_KEY", "ISTHMUS_ADMIN_TOKEN"]);

/** A file that holds one value; more is a wrong path. */
const FILE_CHARACTERS_MAX = 1_048_576;

/** The reference that stands for a stored secret. */
export function secretReference(path: string): string {
  return `\${secret:${path}}`;
}

/** The references of a text, in order. */
export function referencesIn(text: string): readonly Reference[] {
  return Array.from(text.matchAll(pattern), (match) => {
    return { from: match[1] as Reference["from"], name: match[2] ?? "" };
  });
}

/** The text with every reference taken out: what its author wrote in clear. */
export function withoutReferences(text: string): string {
  return text.replaceAll(pattern, "");
}

/** The paths of stored secrets named anywhere in a value. */
export function secretPathsIn(value: Json): ReadonlySet<string> {
  const paths = new Set<string>();
  collectSecretPaths(value, paths);
  return paths;
}

function collectSecretPaths(value: Json, paths: Set<string>): void {
  if (typeof value === "string") {
    for (const reference of referencesIn(value)) {
      if (reference.from === "secret") paths.add(reference.name);
    }
  } else if (value !== null && typeof value === "object") {
    for (const member of Object.values(value)) collectSecretPaths(member, paths);
  }
}

/**
 * The text with its references replaced by their values. Values are not looked into, save that a
 * stored secret may itself hold `${env:…}` and `${file:…}`.
 * @throws InvalidError something named isn't there; the text names the reference and no value.
 */
export async function resolveReferences(text: string, sources: ReferenceSources): Promise<string> {
  return await replaceReferences(text, async (reference) => {
    if (reference.from !== "secret") return await outsideValue(reference, sources);
    const secret = sources.secret(reference.name);
    if (secret === null) throw missing(reference, "no such secret is stored");
    return await replaceReferences(secret, async (inner) => {
      if (inner.from === "secret") throw missing(inner, "a secret can't hold another one");
      return await outsideValue(inner, sources);
    });
  });
}

async function replaceReferences(
  text: string,
  value: (reference: Reference) => Promise<string>,
): Promise<string> {
  const values: string[] = [];
  for (const reference of referencesIn(text)) values.push(await value(reference));
  let index = 0;
  return text.replaceAll(pattern, () => values[index++] ?? "");
}

async function outsideValue(reference: Reference, sources: ReferenceSources): Promise<string> {
  if (reference.from === "env") {
    if (ownVariables.has(reference.name)) throw missing(reference, "it is the gateway's own key");
    const value = sources.env(reference.name);
    if (value === undefined) throw missing(reference, "the environment variable is not set");
    return value;
  }
  const text = await sources.file(reference.name);
  if (text === null) throw missing(reference, "there is no such file");
  if (text.length > FILE_CHARACTERS_MAX) throw missing(reference, "the file is too large");
  // Editors and mounted secrets end a file with a newline that is not part of its value.
  return text.replace(/\r?\n$/, "");
}

function missing(reference: Reference, why: string): InvalidError {
  return new InvalidError(`\${${reference.from}:${reference.name}} can't be resolved: ${why}`);
}
