/**
 * How definitions stand, as the API shows it: each kind's status beside its document, and lists of
 * what runs. Shapes are for people and programs alike; `status.state` is one word for each kind.
 */
import { AUDIT_STREAM, JOURNEY_STREAM } from "../../log/retention.ts";
import { deadLetterStream } from "../../routing/deadletter.ts";
import type {
  Definition,
  HookDocument,
  JsonObject,
  Kind,
  RuleDocument,
} from "../../rules/document.ts";
import type { RouteStatus } from "../../routing/status.ts";
import { hookTrouble } from "../hook-proof.ts";
import type { HttpServices } from "../services.ts";

/** One item of a list. A revision of 0: it exists by being named, and nobody has defined it. */
export interface DefinitionView {
  readonly name: string;
  readonly revision: number;
  /** Which project's file made it; null: none. */
  readonly project: string | null;
  readonly document: JsonObject;
  readonly status: unknown;
}

/** What the gateway keeps for itself; the audit is read, by who may do all. */
const HIDDEN: ReadonlySet<string> = new Set(["$state", JOURNEY_STREAM, AUDIT_STREAM]);

/** A definition with its status. */
export function definitionView(
  kind: Kind,
  definition: Definition,
  services: HttpServices,
): DefinitionView {
  const { name, revision, project, document } = definition;
  return { name, revision, project, document, status: statusOf(kind, definition, services) };
}

/** What exists of a kind without having been defined, with its status. */
export function impliedViews(kind: Kind, services: HttpServices): readonly DefinitionView[] {
  const defined = services.gateway.definitions()[kind];
  return impliedNames(kind, services)
    .filter((name) => !defined.has(name))
    .map((name) => {
      const status =
        kind === "streams" ? streamStatus(name, services) : services.gateway.sourceStatus(name);
      return { name, revision: 0, project: null, document: {}, status };
    });
}

function impliedNames(kind: Kind, { gateway }: HttpServices): readonly string[] {
  if (kind === "streams") return gateway.streams.names().filter((name) => !HIDDEN.has(name));
  return kind === "sources" ? gateway.sourceNames() : [];
}

function statusOf(kind: Kind, definition: Definition, services: HttpServices): unknown {
  const { gateway } = services;
  const { name } = definition;
  switch (kind) {
    case "bridges":
      return gateway.bridgeStatus(name);
    case "streams":
      return streamStatus(name, services);
    case "sources":
      return gateway.sourceStatus(name);
    case "hooks":
      return hookStatus(definition as Definition<HookDocument>, services);
    case "rules":
      return ruleStatus(definition as Definition<RuleDocument>, services);
    case "access":
      return { state: "active", error: null };
  }
}

function streamStatus(name: string, { gateway }: HttpServices): unknown {
  const stream = gateway.streams.find(name);
  const partitions = (stream?.partitions ?? []).map(({ id, offsetStart, offsetEnd, epoch }) => ({
    partition: id.index,
    earliest: offsetStart,
    latest: offsetEnd,
    epoch,
  }));
  const messages = partitions.reduce((sum, { earliest, latest }) => sum + latest - earliest, 0);
  return { state: "active", error: null, messages, partitions };
}

function hookStatus(hook: Definition<HookDocument>, services: HttpServices): unknown {
  const { accepted, codes } = services.telemetry.intake(`hook/${hook.name}`);
  const path = `/hooks/${encodeURIComponent(hook.name)}`;
  const base = services.config.publicUrl?.replace(/\/+$/, "") ?? null;
  const running = services.gateway.hook(hook.name);
  const checked = running?.verifier?.status() ?? null;
  const error = running === undefined ? null : hookTrouble(running, services.config);
  const { verify } = hook.parsed;
  return {
    state: error === null ? "active" : "failing",
    error,
    url: base === null ? path : `${base}${path}`,
    verified: verify !== null,
    ...(verify === null ? {} : { scheme: verify.scheme, keys: checked?.keys ?? [] }),
    accepted,
    refused: Object.fromEntries(codes),
    ...(verify === null ? { warning: notVerified(hook.name) } : {}),
  };
}

/** What is said of a hook that takes messages from anyone. */
export function notVerified(name: string): string {
  return `hook ${name} is not verified: whoever knows its address can send to it`;
}

function ruleStatus(rule: Definition<RuleDocument>, { gateway }: HttpServices): unknown {
  const routes = gateway.routes().filter((route) => route.rule === rule.name);
  const failing = routes.find((route) => route.error !== null);
  return {
    state: rule.parsed.enabled ? worstState(routes) : "disabled",
    error: failing?.error ?? null,
    routes,
  };
}

function worstState(routes: readonly RouteStatus[]): RouteStatus["state"] {
  const order: readonly RouteStatus["state"][] = ["blocked", "paused", "retrying", "running"];
  return order.find((state) => routes.some((route) => route.state === state)) ?? "running";
}

/** Each rule's and source's stream of dead letters, and how many it holds. */
export function deadLetterViews({ gateway }: HttpServices): readonly unknown[] {
  const { rules } = gateway.definitions();
  const owners = [...new Set([...rules.keys(), ...gateway.sourceNames()])].toSorted();
  return owners.flatMap((name) => {
    const stream = gateway.streams.find(deadLetterStream(name));
    if (stream === undefined && !rules.has(name)) return [];
    const messages = (stream?.partitions ?? []).reduce((sum, { offsetStart, offsetEnd }) => {
      return sum + offsetEnd - offsetStart;
    }, 0);
    return [{ name, stream: deadLetterStream(name), messages }];
  });
}
