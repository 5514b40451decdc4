/**
 * Every call that there is: its path, who may make it, on which listener, what it takes and what
 * it answers. The one table that routing, access checks, `405`, the OpenAPI document and its page
 * are made from, so none of them can say something else.
 */
import { DEFINITION_ENDPOINTS } from "./definition-endpoints.ts";
import { OPERATION_ENDPOINTS } from "./operation-endpoints.ts";
import type { Role } from "../rules/store/role-names.ts";

export type Method = "GET" | "POST" | "PUT" | "DELETE" | "OPTIONS";

/** Who may call: anyone; whoever has a token, the handler looks closer; a role. */
export type Access = "open" | "token" | Role;

/** What a call takes as its body, by name in the OpenAPI document. */
export type BodyName =
  | "Bytes"
  | "Messages"
  | "Document"
  | "Definitions"
  | "NewToken"
  | "Rollback"
  | "Pick"
  | "Replay";

/** What a call answers when it succeeds, by name in the OpenAPI document. */
export type AnswerName =
  | "Receipt"
  | "Page"
  | "Events"
  | "StoredReceipt"
  | "List"
  | "Definition"
  | "Applied"
  | "Revision"
  | "Preview"
  | "Explanations"
  | "Journeys"
  | "Operated"
  | "DeadLetter"
  | "Survey"
  | "Job"
  | "BridgeTest"
  | "Token"
  | "Ticket"
  | "Verification"
  | "Health"
  | "Text"
  | "Html"
  | "OpenApi"
  | "Socket"
  | "Nothing";

/** One call. */
export interface Endpoint {
  readonly method: Method;
  /** `:name` stands for one segment. */
  readonly path: string;
  readonly access: Access;
  /** On which listener it answers when administration has its own. */
  readonly side: "public" | "admin" | "both";
  readonly summary: string;
  readonly query?: readonly string[];
  readonly headers?: readonly string[];
  readonly body?: BodyName;
  readonly answers: Readonly<Record<number, AnswerName>>;
  /** Codes of problems that it may answer, beside those that every call may. */
  readonly problems?: readonly number[];
  /** A page that can't set headers shows a ticket in the query instead. */
  readonly takesTicket?: true;
  /** Served before the router, where it costs least. */
  readonly isFast?: true;
}

const READ_QUERY = ["partition", "from", "to", "max", "wait", "where", "as", "key"];
const LIST_QUERY = ["after", "max"];

/** The calls. */
export const ENDPOINTS: readonly Endpoint[] = [
  {
    method: "POST",
    path: "/hooks/:hook",
    access: "open",
    side: "public",
    summary: "Take a webhook; answered once it is on disk, as the hook says or with a receipt",
    body: "Bytes",
    answers: { 202: "Receipt", 200: "Text", 204: "Nothing" },
    problems: [400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 503],
    isFast: true,
  },
  {
    method: "GET",
    path: "/hooks/:hook",
    access: "open",
    side: "public",
    summary: "Tell a provider that somebody is here, or give its challenge back",
    answers: { 200: "Text" },
    problems: [400, 401, 404, 503],
    isFast: true,
  },
  {
    method: "OPTIONS",
    path: "/hooks/:hook",
    access: "open",
    side: "public",
    summary: "Allow a CloudEvents sender to send: the handshake of its webhook specification",
    headers: ["WebHook-Request-Origin", "WebHook-Request-Rate"],
    answers: { 204: "Nothing" },
    problems: [404],
    isFast: true,
  },
  {
    method: "POST",
    path: "/streams/:stream/messages",
    access: "token",
    side: "public",
    summary: "Append messages; answered once they are on disk",
    query: ["partition"],
    headers: ["Isthmus-Key", "Idempotency-Key", "If-Match"],
    body: "Messages",
    answers: { 202: "Receipt" },
    problems: [400, 412, 413, 422, 503],
    isFast: true,
  },
  {
    method: "GET",
    path: "/streams/:stream/messages",
    access: "token",
    side: "public",
    summary: "Read a page of a stream",
    query: READ_QUERY,
    answers: { 200: "Page" },
    problems: [400, 416, 503],
  },
  {
    method: "GET",
    path: "/streams/:stream/events",
    access: "token",
    side: "public",
    summary: "Read a stream as Server-Sent Events; from latest when nothing else is said",
    query: [...READ_QUERY, "ticket"],
    takesTicket: true,
    headers: ["Last-Event-ID"],
    answers: { 200: "Events", 204: "Nothing" },
    problems: [400, 416, 503],
  },
  {
    method: "GET",
    path: "/receipts/:stream/:partition/:offset",
    access: "token",
    side: "public",
    summary: "Ask whether a message is on disk, and for its digest",
    answers: { 200: "StoredReceipt" },
    problems: [400, 404, 503],
  },
  {
    method: "GET",
    path: "/socket",
    access: "open",
    side: "public",
    summary: "Open a WebSocket, isthmus.v1.json; it asks for a token itself",
    answers: { 101: "Socket" },
    problems: [400, 426, 503],
    isFast: true,
  },
  ...DEFINITION_ENDPOINTS,
  ...OPERATION_ENDPOINTS,
  {
    method: "POST",
    path: "/api/apply",
    access: "admin",
    side: "admin",
    summary: "Apply a whole file of definitions, all of it or nothing",
    query: ["dryRun", "prune", "why", "preview"],
    body: "Definitions",
    answers: { 200: "Applied" },
    problems: [400, 409, 412, 413, 422, 429, 503],
  },
  {
    method: "POST",
    path: "/api/rules/:name/preview",
    access: "viewer",
    side: "admin",
    summary: "Run a draft of a rule over recorded messages, without sending; told line by line",
    query: ["from", "to", "last", "limit"],
    body: "Document",
    answers: { 200: "Preview" },
    problems: [400, 413, 416, 422, 429, 503],
  },
  {
    method: "POST",
    path: "/api/bridges/:name/test",
    access: "operator",
    side: "admin",
    summary: "Connect to a bridge anew and look at the places that rules send to; sends nothing",
    answers: { 200: "BridgeTest" },
    problems: [404],
  },
  {
    method: "GET",
    path: "/api/explanations/:stream/:partition/:offset",
    access: "viewer",
    side: "admin",
    summary: "Say for each rule of a stream whether it takes a message, and why",
    query: ["rule"],
    answers: { 200: "Explanations" },
    problems: [400, 404, 503],
  },
  {
    method: "GET",
    path: "/api/tokens",
    access: "admin",
    side: "admin",
    summary: "List tokens, revoked ones too",
    query: LIST_QUERY,
    answers: { 200: "List" },
    problems: [400],
  },
  {
    method: "POST",
    path: "/api/tokens",
    access: "admin",
    side: "admin",
    summary: "Make a token; its text is in this answer and nowhere else",
    body: "NewToken",
    answers: { 201: "Token" },
    problems: [400, 412, 503],
  },
  {
    method: "GET",
    path: "/api/tokens/:name",
    access: "admin",
    side: "admin",
    summary: "Get one token",
    answers: { 200: "Definition" },
    problems: [404],
  },
  {
    method: "PUT",
    path: "/api/tokens/:name",
    access: "admin",
    side: "admin",
    summary: "Make a token of this name",
    body: "NewToken",
    answers: { 201: "Token" },
    problems: [400, 412, 503],
  },
  {
    method: "DELETE",
    path: "/api/tokens/:name",
    access: "admin",
    side: "admin",
    summary: "Revoke a token",
    answers: { 204: "Nothing" },
    problems: [404, 503],
  },
  {
    method: "POST",
    path: "/api/tickets",
    access: "token",
    side: "both",
    summary: "Make a ticket for a page's socket or event source: one use, within 30 seconds",
    answers: { 201: "Ticket" },
    problems: [429],
  },
  {
    method: "GET",
    path: "/api/verifications/:stream/:partition/:offset",
    access: "operator",
    side: "admin",
    summary: "Check the signature of a stored webhook once more",
    answers: { 200: "Verification" },
    problems: [400, 404, 503],
  },
  ...(
    [
      ["routes", "List routes: each rule's targets by partition, with counts and lag"],
      ["dead-letters", "List streams of dead letters and how many each holds"],
      ["clients", "List open sockets and their subscriptions"],
      ["nodes", "List the processes of this gateway"],
    ] as const
  ).map(
    ([name, summary]): Endpoint => ({
      method: "GET",
      path: `/api/${name}`,
      access: "viewer",
      side: "admin",
      summary,
      answers: { 200: "List" },
    }),
  ),
  {
    method: "GET",
    path: "/health/live",
    access: "open",
    side: "both",
    summary: "Whether the process answers",
    answers: { 200: "Health" },
  },
  {
    method: "GET",
    path: "/health/ready",
    access: "open",
    side: "both",
    summary: "Whether traffic may come, with every reason why not",
    answers: { 200: "Health", 503: "Health" },
  },
  {
    method: "GET",
    path: "/metrics",
    access: "viewer",
    side: "admin",
    summary: "Metrics in the text format of Prometheus",
    answers: { 200: "Text" },
  },
  {
    method: "GET",
    path: "/openapi.json",
    access: "open",
    side: "admin",
    summary: "This document",
    answers: { 200: "OpenApi" },
  },
  {
    method: "GET",
    path: "/docs",
    access: "open",
    side: "admin",
    summary: "This document as a page",
    answers: { 200: "Html" },
  },
  {
    method: "GET",
    path: "/",
    access: "open",
    side: "admin",
    summary: "What this is, and where to go on",
    answers: { 200: "Html" },
  },
];

/** Which calls a listener takes. */
export function endpointsOf(side: "all" | "public" | "admin"): readonly Endpoint[] {
  return ENDPOINTS.filter((each) => side === "all" || each.side === side || each.side === "both");
}

/** The methods that a path takes; none: there is nothing at this path. */
export function methodsAt(path: string, endpoints: readonly Endpoint[]): readonly Method[] {
  const segments = path.split("/");
  return endpoints
    .filter((each) => matches(each.path.split("/"), segments))
    .map(({ method }) => method);
}

function matches(pattern: readonly string[], segments: readonly string[]): boolean {
  if (pattern.length !== segments.length) return false;
  return pattern.every((part, index) => {
    const segment = segments[index] ?? "";
    return part.startsWith(":") ? segment !== "" : part === segment;
  });
}
