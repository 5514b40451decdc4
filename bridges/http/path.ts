/**
 * The path of a target below its bridge's URL. It comes from messages, so it can leave neither the
 * host nor, by dots, the folder that the rule names; what HTTP can't carry as it is, is encoded.
 */

/** A path with its query: servers commonly refuse more. Characters. */
const PATH_CHARS_MAX = 8192;

/**
 * What a value of a message may not hold in a path: it could name another place than the rule does.
 */
export const pathSpecials = "/\\?#%&";

const DOTS = /^(\.|%2e){1,2}$/i;
// oxlint-disable-next-line no-control-regex -- these are the very characters that are looked for
const CONTROL = /[\0-\x1f\x7f]/;

/** Why a path can't stand below a URL, or null. */
export function pathProblem(path: string): string | null {
  if (!path.startsWith("/") || path.startsWith("//")) {
    return "expected a path that begins with one /: it stands below the bridge's URL";
  }
  if (path.length > PATH_CHARS_MAX) return `a path has more than ${PATH_CHARS_MAX} characters`;
  if (path.includes("#")) return "a URL's part after # is never sent; leave it out";
  if (path.includes("\\") || CONTROL.test(path)) return "a path holds a \\ or a control character";
  const [before = ""] = path.split("?", 1);
  return before.split("/").some((part) => DOTS.test(part))
    ? "a path holds . or .. between slashes"
    : null;
}

/** Path and query of a request. `path` has no problem. */
export function requestPath(base: URL, path: string | null): string {
  if (path === null) return `${base.pathname}${base.search}`;
  const at = path.indexOf("?");
  const url = new URL(base);
  const folder = url.pathname.replace(/\/+$/, "");
  url.pathname = `${folder}${at < 0 ? path : path.slice(0, at)}`;
  const queries = [base.search.slice(1), at < 0 ? "" : path.slice(at + 1)];
  url.search = queries.filter((query) => query !== "").join("&");
  return `${url.pathname}${url.search}`;
}
