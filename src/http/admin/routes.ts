/**
 * `/api/routes/:rule/…`: pause, resume, seek, parked keys and their release. `?target=` names one
 * target; without it all of the rule's are meant.
 */
import { encodeText } from "../../message.ts";
import type { SeekTo } from "../../routing/operations.ts";
import { laneOfKey } from "../../routing/work.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { parseTimeMs } from "../../rules/units.ts";
import { Query, refused } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";

/** A call that does something to routes. */
export interface RouteCall {
  readonly rule: string;
  readonly url: string;
  readonly principal: Principal;
}

/** Pauses or resumes. @throws NotFoundError, StorageError */
export async function pauseRoutes(
  call: RouteCall,
  isPaused: boolean,
  { gateway }: HttpServices,
): Promise<Response> {
  const target = new Query(call.url, ["target"]).text("target");
  const by = callerText(call.principal);
  const name = { rule: call.rule, target };
  const routes = await gateway.operations.setPaused(name, isPaused, by);
  return jsonResponse({ ...name, paused: isPaused, routes });
}

/** Moves cursors, or says what would be. @throws NotFoundError, OffsetError, StorageError */
export async function seekRoutes(call: RouteCall, services: HttpServices): Promise<Response> {
  const query = new Query(call.url, ["target", "to", "dryRun"]);
  const name = { rule: call.rule, target: query.text("target") };
  const dryRun = query.flag("dryRun");
  const to = seekTo(query.text("to") ?? "", services.clock.nowMs());
  const how = { dryRun, by: callerText(call.principal) };
  const items = await services.gateway.operations.seek(name, to, how);
  return jsonResponse({ dryRun, items });
}

/** The keys that wait for an operator. @throws NotFoundError */
export function parkedKeys(call: RouteCall, { gateway }: HttpServices): Response {
  const target = new Query(call.url, ["target"]).text("target");
  const items = gateway.operations
    .parked({ rule: call.rule, target })
    .flatMap(({ keys, ...route }) => keys.map((key) => ({ ...route, ...key })));
  return jsonResponse({ items, next: null });
}

/** Lets parked keys be tried again. @throws NotFoundError */
export async function releaseKeys(call: RouteCall, { gateway }: HttpServices): Promise<Response> {
  const query = new Query(call.url, ["target", "key", "lane"]);
  const name = { rule: call.rule, target: query.text("target") };
  const key = query.text("key");
  const lane = query.text("lane");
  if (key !== null && lane !== null) throw refused("lane", "give either a key or a lane");
  const which = key === null ? lane : laneOfKey(encodeText(key));
  const keys = await gateway.operations.release(name, which, callerText(call.principal));
  return jsonResponse({ ...name, keys });
}

function seekTo(text: string, nowMs: number): SeekTo {
  if (text === "earliest" || text === "latest") return text;
  const place = /^(\d{1,9})\/(\d{1,15})$/.exec(text);
  if (place !== null) return { partition: Number(place[1]), offset: Number(place[2]) };
  const timestampMs = /^\d+$/.test(text) ? null : parseTimeMs(text, nowMs);
  if (timestampMs !== null) return { timestampMs };
  throw refused("to", "expected earliest, latest, a time, `1h ago`, or PARTITION/OFFSET");
}
