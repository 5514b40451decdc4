/**
 * `/api/dead-letters/:name…`: the dead letters of a rule or source, to list, show, retry and drop.
 * Retry and drop want to be told which: a place, a filter, or `all`.
 */
import { InvalidError, NotFoundError } from "../../errors.ts";
import { jobRateMax, surveyMessagesMax } from "../../limits.ts";
import { earliestCursor, encodeCursor, parseCursor } from "../../log/cursor.ts";
import type { Stream } from "../../log/stream.ts";
import { nextTurn } from "../../clock.ts";
import { decodeText, type StoredMessage } from "../../message.ts";
import { deadLetterStream } from "../../routing/deadletter.ts";
import { hasReason } from "../../routing/job.ts";
import { letterOf, type LetterState, placeOf, readSpan, type Span } from "../../routing/letters.ts";
import type { SetDocument } from "../../rules/document.ts";
import { compileExpression, type Expression } from "../../rules/expression.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { isReadableStream } from "../../rules/units.ts";
import { readableStream, storedAt } from "../append.ts";
import { requireRead } from "../auth.ts";
import { messageJson } from "../message-json.ts";
import { Query, refused } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";
import { type JobCall, jobResponse, spansOf } from "./jobs.ts";
import { Members } from "./members.ts";

const STATES: readonly string[] = ["pending", "redriven", "dropped", "all"];
const PICK_MEMBERS = ["place", "all", "target", "where", "reason", "from", "to", "dryRun"];
const RETRY_MEMBERS = [...PICK_MEMBERS, "set", "again", "rate"];
const LIST_QUERY = ["target", "where", "reason", "from", "to", "state", "after", "max"];
const SET_MEMBERS = ["key", "headers", "body", "properties"];
const LISTED_MAX = 1000;
const LISTED_DEFAULT = 100;

interface Filter {
  readonly target: string | null;
  readonly reason: string | null;
  readonly where: Expression | null;
  readonly state: string;
}

/** The list, a page at a time: without bodies. @throws InvalidError, ForbiddenError */
export async function listLetters(
  call: { readonly name: string; readonly url: string; readonly principal: Principal },
  services: HttpServices,
): Promise<Response> {
  const query = new Query(call.url, LIST_QUERY);
  const stream = letterStream(call, services);
  const where = query.text("where");
  const state = query.text("state") ?? "pending";
  if (!STATES.includes(state)) throw refused("state", `expected one of ${STATES.join(", ")}`);
  const filter: Filter = {
    target: query.text("target"),
    reason: query.text("reason"),
    where: where === null ? null : compileWhere(where),
    state,
  };
  const max = query.count("max", { min: 1, max: LISTED_MAX }) ?? LISTED_DEFAULT;
  const window = { from: query.text("from"), to: query.text("to") };
  const after = query.text("after");
  const spans = (await spansOf(stream, window, services)).map((span, index) => {
    const place = after === null ? undefined : parseCursor(after, stream)[index];
    return { ...span, next: Math.max(span.next, place?.offset ?? 0) };
  });
  const items = await found(stream, spans, { filter, max, services });
  const cursor = earliestCursor(stream).map((place, index) => ({
    ...place,
    offset: spans[index]?.next ?? place.offset,
  }));
  const isOver = spans.every(({ next, end }) => next >= end);
  return jsonResponse({ items, next: isOver ? null : encodeCursor(cursor) });
}

/** One dead letter, and the message as it was. @throws NotFoundError, ForbiddenError */
export async function showLetter(
  call: { readonly name: string; readonly place: string; readonly principal: Principal },
  services: HttpServices,
): Promise<Response> {
  const stream = letterStream(call, services);
  const place = placeOf(call.place);
  const stored = await storedAt(stream, place);
  if (stored === null) throw new NotFoundError(`there is no dead letter ${call.place}`);
  const state = await services.gateway.operations.jobs.marks(stream.name).stateOf(place);
  const attempts = await attemptsOf(stored, services);
  const shown = JSON.stringify({ ...summaryOf(stored, state), history: attempts });
  const message = messageJson(letterOf(stored).message, "bytes");
  return new Response(`${shown.slice(0, -1)},"message":${message}}`, {
    headers: { "content-type": "application/json" },
  });
}

/** What was noted of the attempts that led to a letter: when each was, and what it was answered. */
async function attemptsOf(
  stored: StoredMessage,
  { gateway }: HttpServices,
): Promise<readonly object[]> {
  const { rule, target, position, message } = letterOf(stored);
  if (rule === null || target === null || position === null) return [];
  const notes = await gateway.operations.journeys.notesOf(message, { rule, target });
  const own = `${stored.stream}/${stored.partition}/${stored.offset}`;
  const end = notes.findIndex(({ event, detail }) => event === "dead" && detail === own);
  const before = notes.slice(0, end === -1 ? notes.length : end);
  const begin = before.findLastIndex(({ event }) => event !== "failed") + 1;
  return before.slice(begin).map(({ atMs, attempts, detail, delayMs }) => ({
    atMs,
    refusals: attempts,
    answer: detail,
    againMs: delayMs,
  }));
}

/** Sends letters again: 202 with the job; a dry run: 200 with what it would do. */
export async function retryLetters(
  name: string,
  call: JobCall,
  services: HttpServices,
): Promise<Response> {
  const asked = new Members(call.body, call.contentType, RETRY_MEMBERS);
  const stream = letterStream({ name, principal: call.principal }, services);
  const spans = await pickedSpans(stream, asked, services);
  const wanted = {
    kind: "redrive",
    stream: stream.name,
    rule: name,
    target: asked.text("target"),
    where: asked.text("where"),
    reason: asked.text("reason"),
    set: asked.object("set", SET_MEMBERS) as SetDocument | null,
    again: asked.flag("again"),
    rate: asked.rate("rate", jobRateMax),
  } as const;
  return await jobResponse(wanted, { spans, dryRun: asked.flag("dryRun") }, { call, services });
}

/** Drops letters, or counts them. @throws StorageError some may be dropped: do it again. */
export async function dropLetters(
  name: string,
  call: JobCall,
  services: HttpServices,
): Promise<Response> {
  const asked = new Members(call.body, call.contentType, PICK_MEMBERS);
  const stream = letterStream({ name, principal: call.principal }, services);
  const spans = (await pickedSpans(stream, asked, services)).map((span) => ({ ...span }));
  const dryRun = asked.flag("dryRun");
  const where = asked.text("where");
  const filter: Filter = {
    target: asked.text("target"),
    reason: asked.text("reason"),
    where: where === null ? null : compileWhere(where),
    state: "pending",
  };
  const { states, operations } = services.gateway;
  const marks = operations.jobs.marks(stream.name);
  let dropped = 0;
  while (!call.signal.aborted) {
    const items = await found(stream, spans, { filter, max: LISTED_MAX, services });
    if (!dryRun) await states.save(await marks.mark(items, "dropped"));
    dropped += items.length;
    if (spans.every(({ next, end }) => next >= end)) break;
  }
  const by = callerText(call.principal);
  if (!dryRun) {
    operations.note(`${by} has dropped ${dropped} dead letters of ${name}`);
    const detail = `${dropped} letters`;
    await operations.audit.note([{ by, action: "dropped", kind: "dead-letters", name, detail }]);
  }
  return jsonResponse({ name, dryRun, dropped });
}

interface Search {
  readonly filter: Filter;
  readonly max: number;
  readonly services: HttpServices;
}

/** The next letters that fit, at most so many; the spans move on. */
async function found(stream: Stream, spans: readonly Span[], { filter, max, services }: Search) {
  const marks = services.gateway.operations.jobs.marks(stream.name);
  const items: ReturnType<typeof summaryOf>[] = [];
  for (let looked = 0; items.length < max && looked < surveyMessagesMax; ) {
    const messages = await readSpan(stream, spans, max - items.length);
    if (messages.length === 0) break;
    looked += messages.length;
    for (const stored of messages) {
      const state = await marks.stateOf(stored);
      if (filter.state !== "all" && filter.state !== state) continue;
      const letter = letterOf(stored);
      if (filter.target !== null && letter.target !== filter.target) continue;
      if (!hasReason(letter, filter.reason)) continue;
      if (filter.where !== null && filter.where.test(stored) !== "yes") continue;
      items.push(summaryOf(stored, state));
    }
    await nextTurn();
  }
  return items;
}

function summaryOf(stored: StoredMessage, state: LetterState) {
  const { rule, target, revision, attempts, reason, position, message } = letterOf(stored);
  const { partition, offset, id, key, appendedAtMs } = stored;
  return {
    partition,
    offset,
    id,
    key: key === null ? null : decodeText(key),
    state,
    rule,
    target,
    revision,
    attempts,
    reason,
    position,
    deadAtMs: appendedAtMs,
    bytes: message.body?.length ?? 0,
  };
}

function letterStream(
  { name, principal }: { readonly name: string; readonly principal: Principal },
  services: HttpServices,
): Stream {
  const streamName = deadLetterStream(name);
  requireRead(principal, streamName, null);
  const { gateway } = services;
  const { rules } = gateway.definitions();
  const isKnown = rules.has(name) || gateway.sourceNames().includes(name);
  if (!isKnown && gateway.streams.find(streamName) === undefined && isReadableStream(streamName)) {
    throw new NotFoundError(`there is no rule or source ${name}`);
  }
  return readableStream(services, streamName);
}

/** What is picked: places, or a window with a filter; all only when it is said. */
async function pickedSpans(
  stream: Stream,
  asked: Members,
  services: HttpServices,
): Promise<readonly Span[]> {
  const place = asked.text("place");
  const named = ["target", "where", "reason", "from", "to"].some(
    (name) => asked.text(name) !== null,
  );
  if (place === null && !named && !asked.flag("all")) {
    throw new InvalidError("which ones? give a place, a filter, or all: true");
  }
  const window = { from: asked.text("from"), to: asked.text("to") };
  if (place === null) return await spansOf(stream, window, services);
  if (named || asked.flag("all")) throw refused("place", "give either a place or a filter");
  const { partition, offset } = placeOf(place);
  if ((await storedAt(stream, { partition, offset })) === null) {
    throw new NotFoundError(`there is no dead letter ${place}`);
  }
  return stream.partitions.map(({ epoch }, index) =>
    index === partition ? { epoch, next: offset, end: offset + 1 } : { epoch, next: 0, end: 0 },
  );
}

function compileWhere(source: string): Expression {
  try {
    return compileExpression(source);
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    const errors = error.errors.map((detail) => ({ ...detail, pointer: "/where" }));
    throw new InvalidError(`where: ${error.message}`, errors, { cause: error });
  }
}
