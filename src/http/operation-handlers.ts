/** What the calls of `operation-endpoints.ts` do. */
import { dropLetters, listLetters, retryLetters, showLetter } from "./admin/dead-letters.ts";
import { jsonResponse } from "./admin/definitions.ts";
import { journeyResponse } from "./admin/journey.ts";
import { beginReplay, type JobCall, jobView } from "./admin/jobs.ts";
import {
  parkedKeys,
  pauseRoutes,
  releaseKeys,
  type RouteCall,
  seekRoutes,
} from "./admin/routes.ts";
import type { Call, Handler } from "./handlers.ts";
import type { Principal } from "../rules/store/roles.ts";
import { callerText } from "./services.ts";

/** How handlers get at the parts of a call. */
export interface CallReader {
  readonly param: (call: Call, name: string) => string;
  readonly caller: (call: Call) => Principal;
  readonly body: (call: Call) => Promise<Uint8Array>;
}

/** The handlers, by `METHOD /path`. */
export function operationHandlers(read: CallReader): Readonly<Record<string, Handler>> {
  const { param, caller } = read;
  const routeOf = (call: Call): RouteCall => {
    return { rule: param(call, "rule"), url: call.request.url, principal: caller(call) };
  };
  const jobOf = async (call: Call): Promise<JobCall> => {
    const { headers, signal } = call.request;
    const contentType = headers.get("content-type") ?? "";
    const body = await read.body(call);
    // A look through many messages takes its time.
    call.server.timeout(call.request, 0);
    return { body, contentType, principal: caller(call), signal };
  };
  return {
    "POST /api/routes/:rule/pause": (call) => pauseRoutes(routeOf(call), true, call.context),
    "POST /api/routes/:rule/resume": (call) => pauseRoutes(routeOf(call), false, call.context),
    "POST /api/routes/:rule/seek": (call) => seekRoutes(routeOf(call), call.context),
    "GET /api/routes/:rule/parked": (call) => parkedKeys(routeOf(call), call.context),
    "POST /api/routes/:rule/release": (call) => releaseKeys(routeOf(call), call.context),
    "GET /api/journey": (call) => {
      // A look through many messages takes its time.
      call.server.timeout(call.request, 0);
      const { url, signal } = call.request;
      return journeyResponse({ url, signal, principal: caller(call) }, call.context);
    },
    "GET /api/dead-letters/:name": (call) => {
      const { url } = call.request;
      return listLetters({ name: param(call, "name"), url, principal: caller(call) }, call.context);
    },
    "GET /api/dead-letters/:name/:partition/:offset": (call) => {
      const place = `${param(call, "partition")}/${param(call, "offset")}`;
      const asked = { name: param(call, "name"), place, principal: caller(call) };
      return showLetter(asked, call.context);
    },
    "POST /api/dead-letters/:name/retry": async (call) =>
      await retryLetters(param(call, "name"), await jobOf(call), call.context),
    "POST /api/dead-letters/:name/drop": async (call) =>
      await dropLetters(param(call, "name"), await jobOf(call), call.context),
    "GET /api/replays": ({ context }) => {
      const items = context.gateway.operations.jobs.list().map(jobView);
      return jsonResponse({ items, next: null });
    },
    "POST /api/replays": async (call) => await beginReplay(await jobOf(call), call.context),
    "GET /api/replays/:id": (call) =>
      jsonResponse(jobView(call.context.gateway.operations.jobs.get(param(call, "id")))),
    "DELETE /api/replays/:id": async (call) => {
      const { jobs, audit } = call.context.gateway.operations;
      const by = callerText(caller(call));
      const job = await jobs.cancel(param(call, "id"), by);
      await audit.note([{ by, action: "cancelled", kind: "replays", name: job.id }]);
      return jsonResponse(jobView(job));
    },
  };
}
