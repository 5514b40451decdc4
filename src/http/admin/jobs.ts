/**
 * `/api/replays`: the jobs that send again, to begin, watch and cancel. Redrives of dead letters
 * are jobs, too, and begin in dead-letters.ts.
 */
import { InvalidError, NotFoundError } from "../../errors.ts";
import { jobRateMax } from "../../limits.ts";
import type { Stream } from "../../log/stream.ts";
import type { JobRecord, JobWanted } from "../../routing/job.ts";
import type { Span } from "../../routing/letters.ts";
import { streamOfRule } from "./rehearse.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { isReadableStream } from "../../rules/units.ts";
import { readableStream } from "../append.ts";
import { requireRead } from "../auth.ts";
import { placeCursor } from "../position.ts";
import { refused } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";
import { Members } from "./members.ts";

/** A call that begins a job. */
export interface JobCall {
  readonly body: Uint8Array;
  readonly contentType: string;
  readonly principal: Principal;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
}

const REPLAY_MEMBERS = ["stream", "rule", "target", "from", "to", "where", "rate", "dryRun"];

/** Begins a replay: 202 with the job; a dry run: 200 with what it would do. Throws as `begin`. */
export async function beginReplay(call: JobCall, services: HttpServices): Promise<Response> {
  const asked = new Members(call.body, call.contentType, REPLAY_MEMBERS);
  const rule = asked.needed("rule");
  const known = streamOfRule(services.gateway.definitions(), rule);
  const name = asked.text("stream") ?? known;
  if (name === null) throw refused("stream", "expected the stream to read");
  if (name.startsWith("$")) throw refused("stream", "internal streams are not replayed");
  requireRead(call.principal, name, null);
  // Reading a stream makes one; a wrong name should not be a replay of nothing.
  const isThere = services.gateway.streams.find(name) !== undefined;
  if (isReadableStream(name) && !isThere) throw new NotFoundError(`there is no stream ${name}`);
  const stream = readableStream(services, name);
  const wanted: JobWanted = {
    kind: "replay",
    stream: name,
    rule,
    target: asked.text("target"),
    where: asked.text("where"),
    reason: null,
    set: null,
    again: false,
    rate: asked.rate("rate", jobRateMax),
  };
  const from = asked.text("from");
  if (from === null) throw refused("from", "expected where to begin, such as 1h ago or earliest");
  const spans = await spansOf(stream, { from, to: asked.text("to") }, services);
  return await jobResponse(wanted, { spans, dryRun: asked.flag("dryRun") }, { call, services });
}

/** Begins a job, or tells what it would do. */
export async function jobResponse(
  wanted: JobWanted,
  { spans, dryRun }: { readonly spans: readonly Span[]; readonly dryRun: boolean },
  { call, services }: { readonly call: JobCall; readonly services: HttpServices },
): Promise<Response> {
  const { jobs, audit } = services.gateway.operations;
  const by = callerText(call.principal);
  try {
    if (dryRun) return jsonResponse(await jobs.survey(wanted, spans, call.signal));
    const job = await jobs.begin(wanted, spans, by);
    const detail = `job ${job.id} from ${wanted.stream}`;
    await audit.note([{ by, action: wanted.kind, kind: "rules", name: wanted.rule, detail }]);
    return jsonResponse(jobView(job), { status: 202 });
  } catch (error) {
    const isUnnamed = error instanceof InvalidError && error.errors[0]?.pointer === "";
    if (!isUnnamed) throw error;
    const errors = error.errors.map((detail) => ({ ...detail, pointer: "/where" }));
    throw new InvalidError(`where: ${error.message}`, errors, { cause: error });
  }
}

/** The part of a stream between two places; null: from its oldest, as far as it is now. */
export async function spansOf(
  stream: Stream,
  window: { readonly from: string | null; readonly to: string | null },
  { clock }: Pick<HttpServices, "clock">,
): Promise<readonly Span[]> {
  const context = { stream, partition: null, nowMs: clock.nowMs() };
  const place = (text: string | null, name: string) =>
    text === null ? null : placeCursor(text, { ...context, name });
  const [from, to] = await Promise.all([place(window.from, "from"), place(window.to, "to")]);
  return stream.partitions.map(({ epoch, offsetStart, offsetEnd }, index) => ({
    epoch,
    next: Math.max(offsetStart, from?.[index]?.offset ?? 0),
    end: Math.min(offsetEnd, to?.[index]?.offset ?? offsetEnd),
  }));
}

/** A job as the API shows it. */
export function jobView(job: JobRecord): object {
  const { id, wanted, by, createdAtMs, endedAtMs, state, error, counts, spans } = job;
  const left = spans.reduce((sum, { next, end }) => sum + Math.max(0, end - next), 0);
  return { id, ...wanted, by, createdAtMs, endedAtMs, state, error, counts, left };
}
