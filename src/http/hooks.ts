/**
 * `/hooks/:hook`: takes a webhook's body as a message and answers once it is on disk. The order is
 * limits, bytes, signature, handshake, dedupe, append, answer: nothing is changed before the
 * signature holds. The hot path: one look-up, one pass over the headers, one append, one await for
 * the disk; what a hook does not ask for costs one comparison. `key` and `dedupe` that fail give
 * none and are counted; a hook never answers 4xx for them.
 */
import type { BunRequest } from "bun";
import { GatewayError, LimitError, NotFoundError } from "../errors.ts";
import type { Receipt } from "../log/log.ts";
import type { Stream } from "../log/stream.ts";
import type { Message } from "../message.ts";
import type { HookAnswer } from "../rules/document.ts";
import type { IntakeCounts } from "../telemetry.ts";
import {
  acceptedResponse,
  appendFailure,
  receiptJson,
  settledReceipt,
  whenDurable,
} from "./append.ts";
import { type HeldBody, HookBodies } from "./hook-body.ts";
import { checkHeaders, checkHost } from "./hook-headers.ts";
import { HookLimiter, type Shed } from "./hook-limits.ts";
import { type Dedupe, type KeylessMessage, messageOf, prepare } from "./hook-message.ts";
import { type HookPlan, planOf } from "./hook-plan.ts";
import { type HookServer, type Proof, UNVERIFIED, verified } from "./hook-proof.ts";
import { isChallenge, probeAnswer } from "./probes.ts";
import { failureResponse } from "./problem.ts";
import type { HookFace, HttpContext } from "./services.ts";
import { echoAnswer, handshakeAnswer } from "./verify/handshake.ts";

/** The answer to a webhook, or to what providers ask before they send one. */
export type HookHandler = (
  request: BunRequest<"/hooks/:hook">,
  server: HookServer,
) => Promise<Response>;

/** What all hooks share. */
interface Shared {
  readonly context: HttpContext;
  readonly bodies: HookBodies;
  readonly limiter: HookLimiter;
}

interface Call {
  readonly shared: Shared;
  readonly request: Request;
  readonly server: HookServer;
  readonly hook: HookFace;
  readonly plan: HookPlan;
}

/** Makes the handler of all hooks. */
export function hookHandler(context: HttpContext): HookHandler {
  const { clock, config, gateway, telemetry, stopping } = context;
  const { rate, concurrency, memoryBytes } = config.hookLimits;
  const bodies = new HookBodies({ clock, bytesMax: memoryBytes, stopping });
  const limiter = new HookLimiter({ rate, concurrency }, clock, "hooks");
  const shared: Shared = { context, bodies, limiter };
  telemetry.attachHooks({ underWay: () => limiter.underWay, bodyBytes: () => bodies.bytes });
  const plans = new WeakMap<HookFace, HookPlan>();
  const unknown = async (): Promise<Response> => {
    telemetry.intake("hook").count("not-found");
    return await Promise.resolve(
      failureResponse(new NotFoundError("there is no such hook"), telemetry),
    );
  };
  return (request, server) => {
    const hook = gateway.hook(request.params.hook);
    if (hook === undefined) return unknown();
    let plan = plans.get(hook);
    if (plan === undefined) {
      plan = planOf(hook, context);
      plans.set(hook, plan);
    }
    return answered({ shared, request, server, hook, plan });
  };
}

async function answered(call: Call): Promise<Response> {
  const { shared, request, hook, plan } = call;
  const { bodies, context } = shared;
  let held: HeldBody | null = null;
  let isIn = false;
  try {
    if (plan.mayBeProbe || request.method !== "POST") {
      const probe = await probeOf(call);
      if (probe !== null) return counted(probe, plan.counts, "probe");
    }
    const refused = enter(call);
    if (refused !== null) return counted(refused.response, plan.counts, refused.reason);
    isIn = true;
    const begun = begin(call);
    held = begun.held;
    const raw = await held.arrived;
    const made = plan.isPlain
      ? messageFrom(call, begun, raw, UNVERIFIED)
      : await proven(call, begun, raw);
    if (made instanceof Response) return marked(call, counted(made, plan.counts, "handshake"));
    const dedupe = prepare(hook, made, request.headers, plan.dedupe);
    const stream = context.gateway.streams.stream(hook.document.stream);
    const appended = appendTo(stream, made, dedupe.key);
    try {
      await whenDurable(appended.durable, context);
    } catch (error) {
      throw appendFailure(error);
    }
    let { receipt } = appended;
    if (receipt.duplicate) receipt = await firstReceipt(call, stream, { receipt, made, dedupe });
    plan.counts.accepted++;
    const { answer } = plan;
    return marked(call, answer === null ? acceptedResponse(receiptJson(receipt)) : fixed(answer));
  } catch (error) {
    return failed(call, error);
  } finally {
    if (held !== null) bodies.release(held);
    if (isIn) leave(call);
  }
}

/** The answer to what is no webhook; null: it is one. */
async function probeOf({ request, hook, plan }: Call): Promise<Response | null> {
  const isOther = request.method !== "POST" || !plan.takesPost || isChallenge(hook, request);
  return isOther ? await probeAnswer(hook, request) : null;
}

function failed({ shared, request, plan }: Call, error: unknown): Response {
  if (request.signal.aborted) {
    // The sender is gone, and with it whoever could read an answer.
    plan.counts.count("aborted");
    return new Response(null, { status: 400 });
  }
  plan.counts.count(reasonOf(error));
  const failure = failureResponse(error, shared.context.telemetry);
  if (failure.status === 401 && plan.authenticate !== null) {
    failure.headers.set("www-authenticate", plan.authenticate);
  }
  if (failure.status === 429) shared.bodies.mark(failure);
  return failure;
}

function reasonOf(failure: unknown): string {
  if (failure instanceof LimitError) return failure.reason;
  return failure instanceof GatewayError ? failure.code : "internal";
}

function counted(response: Response, counts: IntakeCounts, code: string): Response {
  counts.count(code);
  return response;
}

/** The hook's own limits come first: one that is over them takes nothing from the others. */
function enter({ shared, plan }: Call): Shed | null {
  const refused = plan.limiter?.enter() ?? null;
  if (refused !== null) return refused;
  const full = shared.limiter.enter();
  if (full !== null) plan.limiter?.leave();
  return full;
}

function leave({ shared, plan }: Call): void {
  shared.limiter.leave();
  plan.limiter?.leave();
}

/** Tells a sender how much its hook has left, or all hooks together. */
function marked({ shared, plan }: Call, response: Response): Response {
  return (plan.limiter ?? shared.limiter).mark(response);
}

/** What is known of a webhook before its body has come. */
interface Begun {
  readonly held: HeldBody;
  /** The coding that its body is to be freed from. */
  readonly inflated: "gzip" | null;
  readonly atMs: number;
  readonly peer: string | null;
}

/** Begins to read a body, which is to be released. @throws RequestError, LimitError */
function begin({ shared, request, server, hook, plan }: Call): Begun {
  checkHost(request.headers);
  const inflated = plan.checksHeaders ? checkHeaders(hook.document, request.headers) : null;
  const atMs = shared.context.clock.nowMs();
  const peer = server.requestIP(request)?.address ?? null;
  return { held: shared.bodies.read(request, server, plan.bounds), inflated, atMs, peer };
}

/** The message of a webhook whose signature holds, or the answer to a handshake, which is none. */
async function proven(
  call: Call,
  begun: Begun,
  raw: Uint8Array,
): Promise<KeylessMessage | Response> {
  const { shared, request, hook, plan } = call;
  const { held, inflated, atMs } = begun;
  const caller = shared.context.proxies.caller(request.headers, begun.peer);
  const isOpen = hook.document.verify === null;
  const proof = isOpen ? UNVERIFIED : await verified(call, { body: raw, atMs, caller });
  const { bytesMax } = plan.bounds;
  const body = inflated === null ? raw : await shared.bodies.inflate(held, raw, bytesMax);
  const asked = handshakeOf(hook, proof, body);
  if (asked !== null) return asked;
  const message = messageFrom(call, begun, body, proof);
  const echo = hook.verifier?.echo ?? null;
  return (echo === null ? null : echoAnswer(echo, message)) ?? message;
}

/** What a provider asks before it sends; null: it is a webhook. Nothing of it is stored. */
function handshakeOf({ verifier }: HookFace, { key }: Proof, body: Uint8Array): Response | null {
  const handshake = verifier?.scheme?.handshake ?? null;
  return handshake === null || key === null ? null : handshakeAnswer(handshake, body, key);
}

function messageFrom(
  { shared, request, plan }: Call,
  { inflated, atMs, peer }: Begun,
  body: Uint8Array,
  { keyId, signedUrl }: Proof,
): KeylessMessage {
  const { context } = shared;
  const { method, url, headers } = request;
  const { address } = context.proxies.caller(headers, peer);
  const origin = plan.origins.of({ method, url, address, signedUrl, keyId, inflated });
  return messageOf(headers, { id: context.ids(), body, atMs, origin, dropped: plan.dropped });
}

/** @throws StorageError the log can't take it now: never a 4xx. */
function appendTo(stream: Stream, message: Message, dedupeKey: string | null) {
  try {
    return stream.appendOne(message, { dedupeKey });
  } catch (error) {
    throw appendFailure(error);
  }
}

/** The receipt that a message got which came before. @throws ConflictError it was another one. */
async function firstReceipt(
  { plan }: Call,
  stream: Stream,
  came: { readonly receipt: Receipt; readonly made: Message; readonly dedupe: Dedupe },
): Promise<Receipt> {
  const { receipt, made, dedupe } = came;
  const { isIdempotency } = dedupe;
  // A first one's body has to be looked at even where the answer doesn't show its receipt.
  if (plan.answer !== null && !isIdempotency) return receipt;
  return await settledReceipt(stream, receipt, isIdempotency ? made : null);
}

function fixed({ status, body, contentType }: HookAnswer): Response {
  const headers = {
    "x-content-type-options": "nosniff",
    ...(contentType === null ? {} : { "content-type": contentType }),
  };
  return new Response(body === "" ? null : body, { status, headers });
}
