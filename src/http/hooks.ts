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
import type { HookAnswer } from "../rules/document.ts";
import type { IntakeCounts } from "../telemetry.ts";
import {
  acceptedResponse,
  appendFailure,
  receiptJson,
  settledReceipt,
  whenDurable,
} from "./append.ts";
import { HookBodies } from "./hook-body.ts";
import { checkHeaders, checkHost } from "./hook-headers.ts";
import { HookLimiter, type Shed } from "./hook-limits.ts";
import { type KeylessMessage, messageOf, prepare } from "./hook-message.ts";
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
  const { counts } = plan;
  let isIn = false;
  try {
    if (request.method !== "POST" || !plan.takesPost || isChallenge(hook, request)) {
      const probe = await probeAnswer(hook, request);
      if (probe !== null) return counted(probe, counts, "probe");
    }
    const refused = enter(call);
    if (refused !== null) return counted(refused.response, counts, refused.reason);
    isIn = true;
    return (plan.limiter ?? shared.limiter).mark(await taken(call));
  } catch (error) {
    if (request.signal.aborted) {
      // The sender is gone, and with it whoever could read an answer.
      counts.count("aborted");
      return new Response(null, { status: 400 });
    }
    counts.count(reasonOf(error));
    const failure = failureResponse(error, shared.context.telemetry);
    if (failure.status === 401 && plan.authenticate !== null) {
      failure.headers.set("www-authenticate", plan.authenticate);
    }
    return failure;
  } finally {
    if (isIn) leave(call);
  }
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

/** Reads, checks and stores, and lets the body's memory go when all is done. */
async function taken(call: Call): Promise<Response> {
  const { shared, request, server, hook, plan } = call;
  const { bodies, context } = shared;
  checkHost(request.headers);
  const inflated = plan.checksHeaders ? checkHeaders(hook.document, request.headers) : null;
  const atMs = context.clock.nowMs();
  const peer = server.requestIP(request)?.address ?? null;
  const held = bodies.read(request, server, plan.bounds);
  try {
    const raw = await held.arrived;
    const caller = context.proxies.caller(request.headers, peer);
    const isOpen = hook.document.verify === null;
    const asked = isOpen ? UNVERIFIED : verified(call, { body: raw, atMs, caller });
    const proof = asked instanceof Promise ? await asked : asked;
    const body = inflated === null ? raw : await bodies.inflate(held, raw, plan.bounds.bytesMax);
    const { method, url, headers } = request;
    const { keyId, signedUrl } = proof;
    const { address } = caller;
    const origin = plan.origins.of({ method, url, address, signedUrl, keyId, inflated });
    const handshake = handshakeOf(call, proof, body);
    if (handshake !== null) return handshake;
    const parts = { id: context.ids(), body, atMs, origin, dropped: plan.dropped };
    return await stored(call, messageOf(headers, parts));
  } finally {
    bodies.release(held);
  }
}

/** What a provider asks before it sends; null: it is a webhook. Nothing of it is stored. */
function handshakeOf({ hook, plan }: Call, { key }: Proof, body: Uint8Array): Response | null {
  const handshake = hook.verifier?.scheme?.handshake ?? null;
  if (handshake === null || key === null) return null;
  const answer = handshakeAnswer(handshake, body, key);
  return answer === null ? null : counted(answer, plan.counts, "handshake");
}

/** Answers once it is on disk. @throws StorageError the log can't take it now: never a 4xx. */
async function stored(call: Call, message: KeylessMessage): Promise<Response> {
  const { shared, request, hook, plan } = call;
  const { context } = shared;
  const echo = hook.verifier?.echo ?? null;
  const echoed = echo === null ? null : echoAnswer(echo, message);
  if (echoed !== null) return counted(echoed, plan.counts, "handshake");
  const { key: dedupeKey, isIdempotency } = prepare(hook, message, request.headers, plan.dedupe);
  const stream = context.gateway.streams.stream(hook.document.stream);
  let receipt: Receipt;
  try {
    const appended = stream.appendOne(message, { dedupeKey });
    await whenDurable(appended.durable, context);
    receipt = appended.receipt;
  } catch (error) {
    throw appendFailure(error);
  }
  const { answer } = plan;
  // A first one's body has to be looked at even where the answer doesn't show its receipt.
  if (receipt.duplicate && (answer === null || isIdempotency)) {
    receipt = await settledReceipt(stream, receipt, isIdempotency ? message : null);
  }
  plan.counts.accepted++;
  return answer === null ? acceptedResponse(receiptJson(receipt)) : fixed(answer);
}

function fixed({ status, body, contentType }: HookAnswer): Response {
  const headers = {
    "x-content-type-options": "nosniff",
    ...(contentType === null ? {} : { "content-type": contentType }),
  };
  return new Response(body === "" ? null : body, { status, headers });
}
