/**
 * Runs drafts of rules over what their streams hold: `POST /api/rules/:name/preview`, which tells
 * its progress line by line, and the counts beside a dry run of `apply`. Bounded in messages, time
 * and number; a client that goes away ends its preview.
 */
import { InvalidError, LimitError } from "../../errors.ts";
import {
  previewMessagesDefault,
  previewMessagesMax,
  previewShare,
  previewStepBytes,
  previewStepMessages,
  previewsMax,
} from "../../rules/limits.ts";
import { type Cursor, earliestCursor, latestCursor } from "../../log/cursor.ts";
import type { Stream } from "../../log/stream.ts";
import { encodeText } from "../../message.ts";
import { planOf } from "../../routing/plan.ts";
import type { Definitions } from "../../rules/document.ts";
import { preview, type PreviewEvent } from "../../rules/preview.ts";
import { bridgesOf, Rehearsal } from "../../rules/rehearsal.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { requireRead } from "../auth.ts";
import { adjusted, placeCursor } from "../position.ts";
import { explained } from "../problem.ts";
import { openRange } from "../range.ts";
import { Query, refused } from "../request.ts";
import { callerText, type HttpContext } from "../services.ts";
import { documentOf } from "./document-body.ts";

/** How long those who were told that there are too many should wait. Milliseconds. */
const RETRY_MS = 5_000;

/** The places for previews of one process. */
export class PreviewSlots {
  #taken = 0;

  /** What each of those that run may take of one core. */
  get share(): number {
    return previewShare / Math.max(1, this.#taken);
  }

  /** Takes a place until it is disposed of. @throws LimitError `rate-limited`: all are taken. */
  take(): Disposable {
    if (this.#taken >= previewsMax) {
      const message = `${previewsMax} previews are running: wait for one to end`;
      throw new LimitError("rate-limited", message, RETRY_MS);
    }
    this.#taken++;
    let isTaken = true;
    return {
      [Symbol.dispose]: () => {
        if (isTaken) this.#taken--;
        isTaken = false;
      },
    };
  }
}

/** One rule before and after a change that is not made. */
export interface RuleChange {
  readonly name: string;
  readonly before: Definitions;
  readonly after: Definitions;
}

/** Which recorded messages are looked at; places as clients write them, null: all there is. */
export interface PreviewWindow {
  readonly from: string | null;
  readonly to: string | null;
  readonly limit: number;
}

/** The stream that a rule reads, in a set of definitions; null when the rule is not in it. */
export function streamOfRule(definitions: Definitions, name: string): string | null {
  return planOf(definitions).rules.find((rule) => rule.name === name)?.stream ?? null;
}

/**
 * Runs one rule's change over its stream: the draft's, or the live rule's when it is deleted.
 * @throws InvalidError a place is none.
 */
export async function rehearse(
  change: RuleChange,
  window: PreviewWindow,
  how: { readonly context: HttpContext; readonly signal: AbortSignal },
): Promise<AsyncGenerator<PreviewEvent, void>> {
  const { context, signal } = how;
  const { gateway, clock, previews } = context;
  const share = (): number => previews.share;
  const draftStream = streamOfRule(change.after, change.name);
  const liveStream = streamOfRule(change.before, change.name);
  const name = draftStream ?? liveStream;
  const stream = name === null ? undefined : gateway.streams.find(name);
  const rehearsalOf = (definitions: Definitions): Rehearsal | null => {
    const rule = definitions.rules.get(change.name);
    if (rule === undefined || !rule.parsed.enabled) return null;
    const bridges = bridgesOf(definitions, gateway.modules);
    return new Rehearsal(change.name, rule.parsed, bridges);
  };
  const draft = rehearsalOf(change.after);
  const isSameStream = draftStream === null || draftStream === liveStream;
  const live = isSameStream ? rehearsalOf(change.before) : null;
  const rest = { draft, live, limit: window.limit, clock, share, signal };
  if (stream === undefined) {
    return preview({ ...rest, next: () => Promise.resolve(null), total: 0 });
  }
  const { cursor, end } = await windowOf(stream, window, clock.nowMs());
  const range = openRange(stream, cursor, { only: null, end });
  const step = { messagesMax: previewStepMessages, bytesMax: previewStepBytes };
  const next = () => range.next({ ...step, wait: false, signal });
  return preview({ ...rest, next, total: countBetween(cursor, end) });
}

async function windowOf(
  stream: Stream,
  { from, to }: PreviewWindow,
  nowMs: number,
): Promise<{ readonly cursor: Cursor; readonly end: Cursor }> {
  const context = { stream, partition: null, nowMs };
  const cursor =
    from === null ? earliestCursor(stream) : await placeCursor(from, { ...context, name: "from" });
  const end =
    to === null ? latestCursor(stream) : await placeCursor(to, { ...context, name: "to" });
  return { cursor: adjusted(stream, cursor, null).cursor, end };
}

/** Offsets may have holes, so this is an upper bound. */
function countBetween(from: Cursor, to: Cursor): number {
  return from.reduce(
    (sum, { offset }, index) => sum + Math.max(0, (to[index]?.offset ?? 0) - offset),
    0,
  );
}

/** A call for a preview. */
export interface PreviewCall {
  readonly name: string;
  readonly url: string;
  readonly contentType: string;
  readonly principal: Principal;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
}

/**
 * NDJSON: `{"progress":…}` now and then, `{"result":…}` as the last line, or `{"problem":…}` when
 * it could not be ended. @throws InvalidError the draft or the window is wrong; pointers are into
 * the draft. @throws LimitError too many previews are running.
 */
export async function previewResponse(
  call: PreviewCall,
  body: Uint8Array,
  context: HttpContext,
): Promise<Response> {
  const { gateway } = context;
  const window = windowIn(new Query(call.url, ["from", "to", "last", "limit"]));
  const document = documentOf(body, call.contentType);
  const change = { kind: "rules", name: call.name, document } as const;
  const before = gateway.definitions();
  const { definitions } = gateway.preview([change], { by: callerText(call.principal) });
  const streamName = streamOfRule(definitions, call.name);
  if (streamName !== null) requireRead(call.principal, streamName, null);
  const gone = new AbortController();
  const signal = AbortSignal.any([call.signal, context.stopping, gone.signal]);
  const slot = context.previews.take();
  let events: AsyncGenerator<PreviewEvent, void>;
  try {
    const changed = { name: call.name, before, after: definitions };
    events = await rehearse(changed, window, { context, signal });
  } catch (error) {
    slot[Symbol.dispose]();
    throw error;
  }
  signal.addEventListener("abort", () => slot[Symbol.dispose](), { once: true });
  const stream = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      const line = await nextLine(events, context);
      if (line !== null) return controller.enqueue(encodeText(line));
      slot[Symbol.dispose]();
      controller.close();
    },
    cancel: () => gone.abort(),
  });
  const headers = { "content-type": "application/x-ndjson", "cache-control": "no-store" };
  return new Response(stream, { headers });
}

/** A failure in the midst is told as a line, for the status has been sent; then it is over. */
async function nextLine(
  events: AsyncGenerator<PreviewEvent, void>,
  { telemetry }: HttpContext,
): Promise<string | null> {
  try {
    const { value, done } = await events.next();
    if (done === true) return null;
    if ("result" in value) telemetry.previewed(value.result.counts.messages);
    return `${JSON.stringify(value)}\n`;
  } catch (error) {
    const { status, code, detail } = explained(error, telemetry).problem;
    return `${JSON.stringify({ problem: { status, code, detail } })}\n`;
  }
}

function windowIn(query: Query): PreviewWindow {
  const limit = query.count("limit", { min: 1, max: previewMessagesMax }) ?? previewMessagesDefault;
  const last = query.text("last");
  const from = query.text("from");
  if (last !== null && from !== null) throw refused("last", "give either last or from");
  return { from: last === null ? from : agoOf(last), to: query.text("to"), limit };
}

/** `1h` as the place `1h ago`. @throws InvalidError it is no duration. */
export function agoOf(last: string): string {
  if (/^\d{1,15}(\.\d{1,9})?(ms|s|m|h|d)$/.test(last)) return `${last} ago`;
  const detail = "expected a duration such as 30m, 1h or 7d";
  throw new InvalidError(`last: ${detail}`, [{ pointer: "/last", detail }]);
}
