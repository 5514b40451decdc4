/**
 * What a hook looks at before it reads a body: how long the headers are, whether the body is of a
 * type that it takes, and in a coding that it can undo. Refused here, nothing of the body is read.
 */
import { InvalidError, RequestError } from "../errors.ts";
import type { HookDocument } from "../rules/document.ts";

/** What stands around a header's name and value on the wire. Bytes. */
const LINE_BYTES = 4;
const GZIP: ReadonlySet<string> = new Set(["gzip", "x-gzip"]);

/** The coding to undo; null: the bytes are kept as they come. @throws RequestError */
export function checkHeaders(
  { limits, accept, inflate }: Pick<HookDocument, "limits" | "accept" | "inflate">,
  headers: Headers,
): "gzip" | null {
  if (limits.headerBytes !== null) checkLength(headers, limits.headerBytes);
  if (accept !== null) checkType(headers.get("content-type"), accept);
  return inflate ? codingOf(headers.get("content-encoding")) : null;
}

function checkLength(headers: Headers, bytesMax: number): void {
  let bytes = 0;
  for (const [name, value] of headers) bytes += name.length + value.length + LINE_BYTES;
  if (bytes <= bytesMax) return;
  throw new RequestError("headers-too-large", `the headers have more than ${bytesMax} bytes`);
}

function checkType(contentType: string | null, accept: readonly string[]): void {
  const type = (contentType ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  const group = `${type.split("/")[0] ?? ""}/*`;
  if (accept.includes(type) || accept.includes(group)) return;
  const detail = `this hook takes ${accept.join(", ")}`;
  throw new RequestError("unsupported-media-type", detail, { "accept-post": accept.join(", ") });
}

function codingOf(contentEncoding: string | null): "gzip" | null {
  const coding = (contentEncoding ?? "").trim().toLowerCase();
  if (coding === "" || coding === "identity") return null;
  if (GZIP.has(coding)) return "gzip";
  const headers = { "accept-encoding": "gzip" };
  throw new RequestError("unsupported-media-type", "this hook undoes gzip, and no other", headers);
}

/** Two `Host` lines come joined: which of them is meant, nobody knows. @throws InvalidError */
export function checkHost(headers: Headers): void {
  if (headers.get("host")?.includes(",") !== true) return;
  const detail = "a request has one Host header with one host";
  throw new InvalidError(detail, [{ pointer: "", detail }]);
}
