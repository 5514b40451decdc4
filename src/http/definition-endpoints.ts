/**
 * The calls that every kind of definition has: to list, read, make, change and delete one, and to
 * go through its revisions and back. A part of the table in `endpoints.ts`.
 */
import { KINDS, type Kind } from "../rules/document.ts";
import type { Endpoint } from "./endpoints.ts";

const LIST_QUERY = ["after", "max"];

/** Kind by kind, in the order in which kinds depend on one another. */
export const DEFINITION_ENDPOINTS: readonly Endpoint[] = KINDS.flatMap((kind) => [
  ...standing(kind),
  ...past(kind),
]);

/** What stands. */
function standing(kind: Kind): readonly Endpoint[] {
  return [
    {
      method: "GET",
      path: `/api/${kind}`,
      access: "viewer",
      side: "admin",
      summary: `List ${kind} and how they stand`,
      query: LIST_QUERY,
      answers: { 200: "List" },
      problems: [400],
    },
    {
      method: "GET",
      path: `/api/${kind}/:name`,
      access: "viewer",
      side: "admin",
      summary: `Get one of ${kind}`,
      answers: { 200: "Definition" },
      problems: [404],
    },
    {
      method: "PUT",
      path: `/api/${kind}/:name`,
      access: "admin",
      side: "admin",
      summary: `Make or change one of ${kind}; in effect when answered`,
      query: ["why"],
      headers: ["If-Match", "If-None-Match"],
      body: "Document",
      answers: { 200: "Definition", 201: "Definition" },
      problems: [400, 412, 413, 422, 503],
    },
    {
      method: "DELETE",
      path: `/api/${kind}/:name`,
      access: "admin",
      side: "admin",
      summary: `Delete one of ${kind}`,
      query: ["why"],
      headers: ["If-Match"],
      answers: { 204: "Nothing" },
      problems: [404, 409, 412, 503],
    },
  ];
}

/** What stood, and the way back. */
function past(kind: Kind): readonly Endpoint[] {
  return [
    {
      method: "GET",
      path: `/api/${kind}/:name/revisions`,
      access: "viewer",
      side: "admin",
      summary: `List what ever stood under a name of ${kind}, newest first: who, when and why`,
      query: LIST_QUERY,
      answers: { 200: "List" },
      problems: [400, 404, 503],
    },
    {
      method: "GET",
      path: `/api/${kind}/:name/revisions/:revision`,
      access: "viewer",
      side: "admin",
      summary: "Get one revision, and its difference to the one before it or to another",
      query: ["against"],
      answers: { 200: "Revision" },
      problems: [400, 404, 503],
    },
    {
      method: "POST",
      path: `/api/${kind}/:name/rollback`,
      access: "admin",
      side: "admin",
      summary: "Put an earlier document in place, as a new revision",
      headers: ["If-Match"],
      body: "Rollback",
      answers: { 200: "Definition" },
      problems: [400, 404, 412, 422, 429, 503],
    },
  ];
}
