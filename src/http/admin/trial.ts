/**
 * `POST /api/bridges/:name/test`: connects anew to what a bridge's document names, and looks at
 * each place that rules send to, in plain words. It sends nothing, takes nothing off a source and
 * leaves what runs alone: the connection is one of its own and is closed at the end.
 */
import type { Bridge, BridgeModule } from "../../bridge.ts";
import { errorText, InvalidError, NotFoundError } from "../../errors.ts";
import { bridgeTestMsMax, bridgeTestPlacesMax, stopTimeoutMs } from "../../limits.ts";
import { within } from "../../routing/within.ts";
import type { BridgeAddress, Definitions } from "../../rules/document.ts";
import { findModule } from "../../rules/place.ts";
import type { HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";

/** One thing that was looked at. */
export interface Finding {
  /** Such as `connect`, or the place as text with the rule that sends to it. */
  readonly what: string;
  readonly ok: boolean;
  /** What is wrong, or what was not looked at and why; null when there is nothing to say. */
  readonly detail: string | null;
}

interface Place {
  readonly rule: string;
  readonly to: BridgeAddress;
}

/** What was found; 200 whether it is good or bad. @throws NotFoundError no such bridge. */
export async function bridgeTestResponse(
  name: string,
  services: HttpServices,
  signal: AbortSignal,
): Promise<Response> {
  const { gateway, clock } = services;
  const definitions = gateway.definitions();
  const bridge = definitions.bridges.get(name)?.parsed;
  const module = bridge === undefined ? null : findModule(gateway.modules, bridge.kind);
  if (bridge === undefined || module === null) throw new NotFoundError("there is no such bridge");
  const startedMs = clock.nowMs();
  const findings = await look({ name, module, config: bridge.config }, services, signal);
  const ok = findings.every((finding) => finding.ok);
  return jsonResponse({ name, ok, tookMs: clock.nowMs() - startedMs, findings });
}

async function look(
  tried: { readonly name: string; readonly module: BridgeModule; readonly config: unknown },
  services: HttpServices,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const { name, module, config } = tried;
  const { clock, resolve, gateway } = services;
  const ending = new AbortController();
  const either = AbortSignal.any([ending.signal, signal]);
  let bridge: Bridge;
  try {
    const connecting = module.connect(config, { name: `${name}-test`, resolve, signal: either });
    bridge = await within(connecting, { clock, ms: bridgeTestMsMax });
  } catch (error) {
    ending.abort();
    return [{ what: "connect", ok: false, detail: errorText(error) }];
  }
  const findings: Finding[] = [{ what: "connect", ok: true, detail: null }];
  const places = placesOf(name, gateway.definitions());
  try {
    for (const place of places.slice(0, bridgeTestPlacesMax)) {
      if (signal.aborted) break;
      findings.push(await lookAt(bridge, place, services));
    }
  } finally {
    const closing = bridge[Symbol.asyncDispose]() as Promise<void>;
    await within(closing, { clock, ms: stopTimeoutMs });
  }
  const more = places.length - bridgeTestPlacesMax;
  if (more > 0) findings.push({ what: `${more} more places`, ok: true, detail: "not looked at" });
  return findings;
}

async function lookAt(
  bridge: Bridge,
  { rule, to }: Place,
  { clock }: HttpServices,
): Promise<Finding> {
  const what = `${to.text} (rule ${rule})`;
  if (to.fields["create"] !== undefined && to.fields["create"] !== false) {
    return { what, ok: true, detail: "not looked at: it is made when the rule starts" };
  }
  try {
    const address = { text: to.text, fields: to.fields };
    const sink = await within(bridge.sink(address), { clock, ms: bridgeTestMsMax });
    await within(sink[Symbol.asyncDispose]() as Promise<void>, { clock, ms: stopTimeoutMs });
    return { what, ok: true, detail: null };
  } catch (error) {
    const isWrong = error instanceof InvalidError;
    const detail = isWrong ? errorText(error) : `can't be told: ${errorText(error)}`;
    return { what, ok: false, detail };
  }
}

/** Where rules that are enabled send to over the bridge, each place once. */
function placesOf(bridge: string, { rules }: Definitions): readonly Place[] {
  const places = new Map<string, Place>();
  for (const { name, parsed } of rules.values()) {
    if (!parsed.enabled) continue;
    for (const { to } of parsed.to) {
      if (!("bridge" in to) || to.bridge !== bridge || places.has(to.text)) continue;
      places.set(to.text, { rule: name, to });
    }
  }
  return [...places.values()];
}
