/**
 * What each call of the table does, by method and path. Callers have been let in when a handler
 * runs; handlers put the parts together, the work is in the file of each part.
 */
import { assert } from "../assert.ts";
import { idleTimeoutS } from "../limits.ts";
import { definitionsCharsMax } from "../rules/limits.ts";
import { KINDS } from "../rules/document.ts";
import type { Principal } from "../rules/store/roles.ts";
import { applyResponse } from "./admin/apply.ts";
import {
  deleteDefinition,
  getDefinition,
  jsonResponse,
  listDefinitions,
  putDefinition,
} from "./admin/definitions.ts";
import { explainResponse } from "./admin/explain.ts";
import { previewResponse } from "./admin/rehearse.ts";
import { getRevision, listRevisions, rollBack } from "./admin/revisions.ts";
import { bridgeTestResponse } from "./admin/trial.ts";
import { createToken, getToken, listTokens, revokeToken } from "./admin/tokens.ts";
import { deadLetterViews } from "./admin/views.ts";
import { withoutTicket } from "./auth.ts";
import { eventsResponse } from "./events.ts";
import { liveResponse, readyResponse } from "./health.ts";
import { openApiDocument } from "./openapi.ts";
import { operationHandlers } from "./operation-handlers.ts";
import { docsPage, homePage } from "./pages.ts";
import { readPage, readRequest } from "./read.ts";
import { receiptResponse } from "./receipts.ts";
import { readBody, type TimeoutServer } from "./request.ts";
import type { HttpContext } from "./services.ts";
import type { SocketHub } from "./socket.ts";
import { verificationResponse } from "./verify/stored.ts";

/** One call, and what it needs. */
export interface Call {
  readonly request: Request;
  readonly server: TimeoutServer;
  readonly params: Readonly<Record<string, string>>;
  /** Null only where everyone is let in. */
  readonly principal: Principal | null;
  readonly context: HttpContext;
  readonly hub: SocketHub;
}

/** Answers a call, or throws what becomes a problem. */
export type Handler = (call: Call) => Response | Promise<Response>;

/** The handlers, by `METHOD /path` as the table of calls writes it. */
export const HANDLERS: Readonly<Record<string, Handler>> = {
  "GET /streams/:stream/messages": async (call) => {
    const request = await readRequest(
      {
        url: call.request.url,
        streamName: param(call, "stream"),
        principal: callerIn(call),
        fallback: "earliest",
        resumeFrom: null,
      },
      call.context,
    );
    call.server.timeout(call.request, Math.ceil(request.waitMs / 1000) + idleTimeoutS);
    return await readPage(request, call.context, call.request.signal);
  },
  "GET /streams/:stream/events": async (call) => {
    const request = await readRequest(
      {
        url: withoutTicket(call.request.url),
        streamName: param(call, "stream"),
        principal: callerIn(call),
        fallback: "latest",
        resumeFrom: lastEventId(call.request.headers),
      },
      call.context,
    );
    // Pings show whether the client is there; silence is no reason to cut it off.
    call.server.timeout(call.request, 0);
    return eventsResponse(request, call.context, call.request.signal);
  },
  "GET /receipts/:stream/:partition/:offset": (call) => {
    const path = {
      stream: param(call, "stream"),
      partition: param(call, "partition"),
      offset: param(call, "offset"),
    };
    return receiptResponse(path, callerIn(call), call.context);
  },
  "GET /api/verifications/:stream/:partition/:offset": (call) => {
    const path = {
      stream: param(call, "stream"),
      partition: param(call, "partition"),
      offset: param(call, "offset"),
    };
    return verificationResponse(path, callerIn(call), call.context);
  },
  ...definitionHandlers(),
  ...operationHandlers({ param, caller: callerIn, body: definitionBody }),
  "POST /api/rules/:name/preview": async (call) => {
    const { request } = call;
    const body = await definitionBody(call);
    // Progress shows that it lives; a preview may take longer than a quiet connection.
    call.server.timeout(request, 0);
    const asked = {
      name: param(call, "name"),
      url: request.url,
      contentType: request.headers.get("content-type") ?? "",
      principal: callerIn(call),
      signal: request.signal,
    };
    return await previewResponse(asked, body, call.context);
  },
  "POST /api/bridges/:name/test": (call) => {
    // A bridge that does not answer is waited for.
    call.server.timeout(call.request, 0);
    return bridgeTestResponse(param(call, "name"), call.context, call.request.signal);
  },
  "GET /api/explanations/:stream/:partition/:offset": (call) => {
    const path = {
      stream: param(call, "stream"),
      partition: param(call, "partition"),
      offset: param(call, "offset"),
    };
    const { url } = call.request;
    return explainResponse({ path, url, principal: callerIn(call) }, call.context);
  },
  "POST /api/apply": async (call) => {
    const body = await definitionBody(call);
    const contentType = call.request.headers.get("content-type") ?? "";
    const { url, signal } = call.request;
    // A dry run with previews takes its time.
    call.server.timeout(call.request, 0);
    const principal = callerIn(call);
    return await applyResponse({ url, contentType, principal, signal }, body, call.context);
  },
  "POST /api/tickets": (call) => {
    const ticket = call.context.tickets.issue(callerIn(call));
    return jsonResponse(ticket, { status: 201, headers: { "cache-control": "no-store" } });
  },
  "GET /api/tokens": ({ request, context }) => listTokens(request.url, context),
  "POST /api/tokens": (call) => tokenMade(call, null),
  "GET /api/tokens/:name": (call) => getToken(param(call, "name"), call.context),
  "PUT /api/tokens/:name": (call) => tokenMade(call, param(call, "name")),
  "DELETE /api/tokens/:name": (call) =>
    revokeToken(param(call, "name"), callerIn(call), call.context),
  "GET /api/routes": ({ context }) => whole(context.gateway.routes()),
  "GET /api/dead-letters": ({ context }) => whole(deadLetterViews(context)),
  "GET /api/clients": ({ hub }) => whole(hub.list()),
  "GET /api/nodes": ({ context }) => whole(nodeViews(context)),
  "GET /health/live": () => liveResponse(),
  "GET /health/ready": ({ context }) => readyResponse(context),
  "GET /metrics": async ({ context }) => {
    const { text, contentType } = await context.telemetry.metrics();
    return new Response(text, { headers: { "content-type": contentType } });
  },
  "GET /openapi.json": ({ context }) =>
    jsonResponse(openApiDocument(context.version, context.config.publicUrl)),
  "GET /docs": ({ context }) => docsPage(context.version),
  "GET /": ({ context, request }) =>
    homePage(context.version, context.config.publicUrl ?? new URL(request.url).origin),
};

function definitionHandlers(): Readonly<Record<string, Handler>> {
  const handlers: Record<string, Handler> = {};
  for (const kind of KINDS) {
    const callOf = (call: Call) => ({
      kind,
      name: param(call, "name"),
      url: call.request.url,
      headers: call.request.headers,
      principal: callerIn(call),
    });
    handlers[`GET /api/${kind}`] = ({ request, context }) =>
      listDefinitions(kind, request.url, context);
    handlers[`GET /api/${kind}/:name`] = (call) =>
      getDefinition(kind, param(call, "name"), call.context);
    handlers[`PUT /api/${kind}/:name`] = async (call) =>
      await putDefinition(callOf(call), await definitionBody(call), call.context);
    handlers[`GET /api/${kind}/:name/revisions`] = (call) =>
      listRevisions(callOf(call), call.context);
    handlers[`GET /api/${kind}/:name/revisions/:revision`] = (call) =>
      getRevision(callOf(call), param(call, "revision"), call.context);
    handlers[`POST /api/${kind}/:name/rollback`] = async (call) =>
      await rollBack(callOf(call), await definitionBody(call), call.context);
    handlers[`DELETE /api/${kind}/:name`] = (call) => deleteDefinition(callOf(call), call.context);
  }
  return handlers;
}

async function tokenMade(call: Call, name: string | null): Promise<Response> {
  const body = await definitionBody(call);
  const contentType = call.request.headers.get("content-type") ?? "";
  return await createToken({ name, body, contentType, principal: callerIn(call) }, call.context);
}

function definitionBody(call: Call): Promise<Uint8Array> {
  return readBody(call.request, call.server, definitionsCharsMax);
}

function param(call: Call, name: string): string {
  const value = call.params[name];
  assert(value !== undefined, "a handler asks for parameters of its own path");
  return value;
}

function callerIn({ principal }: Call): Principal {
  assert(principal !== null, "a call that needs a caller has been let in with one");
  return principal;
}

function lastEventId(headers: Headers): string | null {
  const id = headers.get("last-event-id");
  return id === null || id === "" ? null : id;
}

/** A list that is short enough to come whole. */
function whole(items: readonly unknown[]): Response {
  return jsonResponse({ items, next: null });
}

/** This gateway, then the others on the same definitions as they were last heard of. */
function nodeViews({ version, startedAtMs, config, gateway, clock }: HttpContext): object[] {
  const { nodes } = gateway;
  const self = {
    name: nodes?.self.name ?? `${config.host}:${config.port}`,
    isSelf: true,
    version,
    startedAtMs,
    seenAtMs: clock.nowMs(),
    url: config.publicUrl,
    ready: gateway.readiness().ready,
    definitionsVersion: gateway.definitions().version,
    sources: nodes?.held() ?? [],
  };
  const others = (nodes?.others() ?? []).map(({ id: _id, backend: _backend, ...node }) => {
    const { silentMs, ...rest } = node;
    return { ...rest, isSelf: false, seenAtMs: clock.nowMs() - silentMs };
  });
  return [self, ...others];
}
