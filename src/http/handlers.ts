/**
 * What each call of the table does, by method and path. Callers have been let in when a handler
 * runs; handlers put the parts together, the work is in the file of each part.
 */
import { assert } from "../assert.ts";
import { definitionsCharsMax, idleTimeoutS } from "../limits.ts";
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
import { createToken, getToken, listTokens, revokeToken } from "./admin/tokens.ts";
import { deadLetterViews } from "./admin/views.ts";
import { eventsResponse } from "./events.ts";
import { liveResponse, readyResponse } from "./health.ts";
import { openApiDocument } from "./openapi.ts";
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
        url: call.request.url,
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
  "POST /api/apply": async (call) => {
    const body = await definitionBody(call);
    const contentType = call.request.headers.get("content-type") ?? "";
    const { url } = call.request;
    return await applyResponse({ url, contentType, principal: callerIn(call) }, body, call.context);
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
  "GET /api/nodes": ({ context }) => whole([nodeView(context)]),
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
      headers: call.request.headers,
      principal: callerIn(call),
    });
    handlers[`GET /api/${kind}`] = ({ request, context }) =>
      listDefinitions(kind, request.url, context);
    handlers[`GET /api/${kind}/:name`] = (call) =>
      getDefinition(kind, param(call, "name"), call.context);
    handlers[`PUT /api/${kind}/:name`] = async (call) =>
      await putDefinition(callOf(call), await definitionBody(call), call.context);
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

function nodeView({ version, startedAtMs, config, gateway }: HttpContext): object {
  const { ready } = gateway.readiness();
  return {
    name: `${config.host}:${config.port}`,
    version,
    startedAtMs,
    url: config.publicUrl,
    ready,
    definitionsVersion: gateway.definitions().version,
  };
}
