/**
 * The kinds that the command line names, in the plural of the API or in the singular, and the
 * addresses of what is named.
 */
import { KINDS } from "../rules/document.ts";
import { didYouMean } from "../rules/suggest.ts";
import { UsageError } from "./failure.ts";

/** Everything that `get` lists: definitions, what runs, and tokens. */
const LISTED = [...KINDS, "routes", "tokens", "nodes"] as const;
export type Listed = (typeof LISTED)[number];

/** The kinds for a help text. */
export const LISTED_TEXT = LISTED.join(", ");

/** The kind that a word means. @throws UsageError with the nearest one */
export function kindOf(word: string): Listed {
  const lower = word.toLowerCase();
  const kind = LISTED.find((each) => each === lower || each.slice(0, -1) === lower);
  if (kind !== undefined && lower !== "acces") return kind;
  const near = didYouMean(word, LISTED);
  throw new UsageError(`there is no kind "${word}"${near}; there are ${LISTED_TEXT}`);
}

/** The API's address of a kind, or of one of it. */
export function apiPath(kind: Listed, name?: string): string {
  return name === undefined ? `/api/${kind}` : `/api/${kind}/${encodeURIComponent(name)}`;
}
