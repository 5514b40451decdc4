/**
 * `GET /api/journey?place=STREAM/PARTITION/OFFSET` or `?id=ID`: how a message was received, what
 * each rule made of it and why, each attempt, and where it is now. An id is looked for within
 * bounds; the answer says how far.
 */
import { NotFoundError } from "../../errors.ts";
import type { Stream } from "../../log/stream.ts";
import { decodeText } from "../../message.ts";
import type { Journey } from "../../routing/journey.ts";
import type { Place } from "../../routing/journey-log.ts";
import { placeOf } from "../../routing/letters.ts";
import { type Principal, readReach } from "../../rules/store/roles.ts";
import { readableStream } from "../append.ts";
import { requireRead } from "../auth.ts";
import { Query, refused } from "../request.ts";
import type { HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";

/** Query parameters of the call. */
export const JOURNEY_QUERY = ["id", "place", "stream"];

const PLACE = /^([^/]+)\/(\d{1,9}\/\d{1,15})$/;

/** A place in a query. @throws InvalidError it is none. */
export function journeyPlace(text: string): Place {
  const match = PLACE.exec(text);
  if (match === null)
    throw refused("place", "expected STREAM/PARTITION/OFFSET, such as orders/0/17");
  const [, stream = "", rest = ""] = match;
  return { stream, ...placeOf(rest) };
}

/** The journeys: of an id one for each stream that it came to, oldest first. */
export async function journeyResponse(
  call: { readonly url: string; readonly principal: Principal; readonly signal: AbortSignal },
  services: HttpServices,
): Promise<Response> {
  const query = new Query(call.url, JOURNEY_QUERY);
  const id = query.text("id");
  const place = query.text("place");
  if ((id === null) === (place === null)) throw refused("place", "give either a place or an id");
  const { journeys } = services.gateway.operations;
  if (place !== null) {
    const at = journeyPlace(place);
    readableStream(services, at.stream);
    const journey = await journeys.at(at);
    requireReadOf(call.principal, journey);
    const items = [journeyView(journey, services)];
    return jsonResponse({ items, searched: 1, complete: true });
  }
  const among = streamsOf(query.text("stream"), call.principal, services);
  const { places, searched, complete } = await journeys.find(id ?? "", among, call.signal);
  const items: object[] = [];
  for (const each of places) {
    const journey = await journeys.at(each).catch(unlessGone);
    if (journey !== null) items.push(journeyView(journey, services));
  }
  return jsonResponse({ items, searched, complete });
}

/** Where an id is looked for: messages that were passed on are found by the streams' own rules. */
function streamsOf(
  name: string | null,
  principal: Principal,
  services: HttpServices,
): readonly Stream[] {
  if (name !== null) {
    const stream = readableStream(services, name);
    requireRead(principal, name, null);
    return [stream];
  }
  const { streams } = services.gateway;
  const isWanted = (each: string): boolean =>
    !each.startsWith("$") && !each.endsWith(".dead") && readReach(principal, each, null) !== null;
  return streams
    .names()
    .filter(isWanted)
    .map((each) => streams.stream(each));
}

function requireReadOf(principal: Principal, { stream, message }: Journey): void {
  const key = message?.key ?? null;
  requireRead(principal, stream, key === null ? null : decodeText(key));
}

function journeyView(
  { message, routes, received, complete, stream, partition, offset }: Journey,
  { gateway }: HttpServices,
): object {
  const known = routes.map((route) => ({
    ...route,
    enabled: gateway.definitions().rules.get(route.rule)?.parsed.enabled ?? null,
  }));
  return {
    stream,
    partition,
    offset,
    message:
      message === null
        ? null
        : {
            id: message.id,
            key: message.key === null ? null : decodeText(message.key),
            timestamp: message.timestampMs,
            appendedAt: message.appendedAtMs,
            bytes: message.body?.length ?? null,
          },
    received,
    routes: known,
    complete,
  };
}

/** Between the search and the look retention may have taken it. */
function unlessGone(error: unknown): null {
  if (error instanceof NotFoundError) return null;
  throw error;
}
