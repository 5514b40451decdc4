/**
 * Bodies that hold definitions: JSON, or YAML where the sender says so. JSON is checked as JSON
 * first, so that what is no JSON is told in its words; then it is read as definition files are,
 * which refuses keys that stand twice and numbers that would lose digits.
 */
import { isUtf8 } from "node:buffer";
import { InvalidError } from "../../errors.ts";
import { parseJson } from "../../json.ts";
import type { Json, JsonObject } from "../../rules/document.ts";
import { parseFile } from "../../rules/yaml.ts";

const YAML = /^\s*(application|text)\/(x-)?yaml\b/i;

/** The data of a body. @throws InvalidError `invalid`: no JSON; `definition-invalid`: the rest. */
export function dataOf(body: Uint8Array, contentType: string): Json {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (!isUtf8(bytes)) throw new InvalidError("the body is not UTF-8");
  const text = bytes.toString("utf8");
  if (!YAML.test(contentType)) parseJson(text);
  return parseFile(text, "body").value;
}

/** One bare document. @throws InvalidError */
export function documentOf(body: Uint8Array, contentType: string): JsonObject {
  const data = dataOf(body, contentType);
  if (typeof data === "object" && data !== null && !Array.isArray(data)) return data as JsonObject;
  const detail = "expected an object: the bare document";
  throw new InvalidError(detail, [{ pointer: "", detail }], { code: "definition-invalid" });
}
