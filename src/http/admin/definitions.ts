/**
 * `/api/KIND` and `/api/KIND/:name`: one definition at a time. `PUT` takes the bare document and
 * answers once this process works by it. Revisions are ETags: `If-Match` makes a change only on
 * the revision that its author saw.
 */
import { ConflictError, InvalidError, NotFoundError } from "../../errors.ts";
import { listItemsMax } from "../../limits.ts";
import { type Change, type Definition, type Kind } from "../../rules/document.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { Query } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { documentOf } from "./document-body.ts";
import { definitionView, type DefinitionView, impliedViews } from "./views.ts";

/** A page of items, and the name to go on after. */
export function listResponse(items: readonly { readonly name: string }[], url: string): Response {
  const query = new Query(url, ["after", "max"]);
  const after = query.text("after");
  const max = query.count("max", { min: 1, max: listItemsMax }) ?? listItemsMax;
  const sorted = [...items]
    .toSorted((left, right) => (left.name < right.name ? -1 : 1))
    .filter(({ name }) => after === null || name > after);
  const page = sorted.slice(0, max);
  const next = sorted.length > page.length ? (page.at(-1)?.name ?? null) : null;
  return jsonResponse({ items: page, next });
}

/** An answer of the API. */
export function jsonResponse(
  value: unknown,
  options: { readonly status?: number; readonly headers?: Readonly<Record<string, string>> } = {},
): Response {
  return new Response(JSON.stringify(value), {
    status: options.status ?? 200,
    headers: {
      "content-type": "application/json",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      ...options.headers,
    },
  });
}

/** All of a kind, those included that exist only by being named. */
export function listDefinitions(kind: Kind, url: string, services: HttpServices): Response {
  const defined = [...services.gateway.definitions()[kind].values()].map((definition) =>
    definitionView(kind, definition as Definition, services),
  );
  return listResponse([...defined, ...impliedViews(kind, services)], url);
}

/** One definition. @throws NotFoundError */
export function getDefinition(kind: Kind, name: string, services: HttpServices): Response {
  return viewResponse(viewOf(kind, name, services), 200);
}

/** One of a kind that is to be changed. */
export interface DefinitionCall {
  readonly kind: Kind;
  readonly name: string;
  readonly url: string;
  readonly headers: Headers;
  readonly principal: Principal;
}

/** Makes or changes a definition. Throws as `Store.change`. */
export async function putDefinition(
  call: DefinitionCall,
  body: Uint8Array,
  services: HttpServices,
): Promise<Response> {
  const { kind, name, headers, principal } = call;
  const document = documentOf(body, headers.get("content-type") ?? "");
  const change: Change = { kind, name, document, ...conditionOf(call, services) };
  const context = { by: callerText(principal), ...whyOf(call) };
  const { results } = await services.gateway.change([change], context);
  const created = results[0]?.outcome === "created";
  return viewResponse(viewOf(kind, name, services), created ? 201 : 200);
}

/** Deletes a definition. @throws NotFoundError. @throws ConflictError it is in use, and by what. */
export async function deleteDefinition(
  call: DefinitionCall,
  services: HttpServices,
): Promise<Response> {
  const { kind, name, principal } = call;
  if (!services.gateway.definitions()[kind].has(name)) throw missing(kind, name);
  const change: Change = { kind, name, document: null, ...conditionOf(call, services) };
  await services.gateway.change([change], { by: callerText(principal), ...whyOf(call) });
  return new Response(null, { status: 204 });
}

/** What the caller says about a change, for the record. */
function whyOf({ url }: DefinitionCall): { readonly why?: string } {
  const why = new Query(url, ["why"]).text("why");
  return why === null ? {} : { why };
}

function viewOf(kind: Kind, name: string, services: HttpServices): DefinitionView {
  const definition = services.gateway.definitions()[kind].get(name);
  if (definition !== undefined) return definitionView(kind, definition as Definition, services);
  const implied = impliedViews(kind, services).find((view) => view.name === name);
  if (implied === undefined) throw missing(kind, name);
  return implied;
}

function viewResponse(view: DefinitionView, status: number): Response {
  return jsonResponse(view, { status, headers: { etag: `"${view.revision}"` } });
}

function missing(kind: Kind, name: string): NotFoundError {
  return new NotFoundError(`there is no ${kind}/${name.slice(0, 120)}`);
}

/**
 * `If-Match` and `If-None-Match: *` as the revision that the definition must have.
 * @throws InvalidError a header is none of these. @throws ConflictError it is not there.
 */
export function conditionOf(call: DefinitionCall, services: HttpServices): { ifRevision?: number } {
  const { kind, name, headers } = call;
  const noneMatch = headers.get("if-none-match");
  const match = headers.get("if-match");
  if (noneMatch !== null) {
    if (noneMatch.trim() === "*") return { ifRevision: 0 };
    throw refusedHeader("If-None-Match", "expected *");
  }
  if (match === null) return {};
  if (match.trim() !== "*") {
    const revision = /^\s*(?:W\/)?"?(\d{1,15})"?\s*$/.exec(match)?.[1];
    if (revision === undefined) throw refusedHeader("If-Match", 'expected a revision, such as "3"');
    return { ifRevision: Number(revision) };
  }
  const standing = services.gateway.definitions()[kind].get(name);
  if (standing === undefined) {
    throw new ConflictError("conflict", `${kind}/${name} is not there`, { revision: 0 });
  }
  return { ifRevision: standing.revision };
}

function refusedHeader(name: string, detail: string): InvalidError {
  return new InvalidError(`${name}: ${detail}`, [{ pointer: `/${name}`, detail }]);
}
