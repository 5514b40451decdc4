/**
 * What the HTTP layer is given: the gateway, tokens, settings, time and telemetry, all of it by
 * parameter. Structural, so that tests build it from real parts and nothing here knows how a
 * gateway is made.
 */
import type { BridgeModule } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import type { States } from "../log/log.ts";
import type { Streams } from "../log/stream.ts";
import type { Operations } from "../routing/operations.ts";
import type { BridgeStatus, Readiness, RouteStatus, SourceStatus } from "../routing/status.ts";
import type { ChangeResult } from "../rules/store/change.ts";
import type { Change, ChangeContext, Definitions, HookDocument, Kind } from "../rules/document.ts";
import type { Expression } from "../rules/expression.ts";
import type { Rate } from "../rules/units.ts";
import type { Principal } from "../rules/store/roles.ts";
import type { Nodes } from "../rules/store/nodes.ts";
import type { StoredRevision } from "../rules/store/state.ts";
import type { Tokens } from "../rules/store/tokens.ts";
import type { Telemetry } from "../telemetry.ts";
import type { PreviewSlots } from "./admin/rehearse.ts";
import type { Callers } from "./callers.ts";
import type { ClientCounts } from "./client-limits.ts";
import type { Fetch } from "./jwks.ts";
import type { Proxies } from "./proxies.ts";
import type { ReadTurns } from "./read-turns.ts";
import type { Tickets } from "./tickets.ts";
import type { Verifier } from "./verify/verifier.ts";

/** A hook with its expressions compiled. */
export interface HookFace {
  readonly name: string;
  readonly document: HookDocument;
  readonly key: Expression | null;
  readonly dedupe: Expression | null;
  /** What checks its senders; absent where nothing is to be checked. */
  readonly verifier?: Verifier;
}

/** What a change has led to. */
export interface ChangedFace {
  readonly definitions: Definitions;
  readonly results: readonly ChangeResult[];
}

/** The gateway, as far as HTTP needs it. */
export interface GatewayFace {
  readonly streams: Streams;
  readonly states: States;
  /** What operators do to routes, and the jobs that send again. */
  readonly operations: Operations;
  /** A look-up in a map: called for each message. */
  hook(name: string): HookFace | undefined;
  definitions(): Definitions;
  /** In effect in this process when it resolves. Throws as `Store.change`. */
  change(changes: readonly Change[], context: ChangeContext): Promise<ChangedFace>;
  /** What `change` would answer; changes nothing. */
  preview(changes: readonly Change[], context: ChangeContext): ChangedFace;
  /** What ever stood under a name, newest first. @throws DatabaseError the database is away. */
  revisions(kind: Kind, name: string): Promise<readonly StoredRevision[]>;
  /** The bridges' modules by kind. */
  readonly modules: ReadonlyMap<string, BridgeModule>;
  bridgeStatus(name: string): BridgeStatus;
  sourceStatus(name: string): SourceStatus;
  sourceNames(): readonly string[];
  routes(): readonly RouteStatus[];
  /** The gateways on the same database; null: this one is alone. */
  readonly nodes: Pick<Nodes, "self" | "others" | "held"> | null;
  readiness(): Readiness;
}

/** Who callers are. */
export type TokensFace = Pick<Tokens, "authenticate" | "isStanding" | "list" | "create" | "revoke">;

/** The limits of all hooks together. */
export interface HookTotals {
  readonly rate: Rate | null;
  readonly concurrency: number;
  /** Bodies in memory, bytes. */
  readonly memoryBytes: number;
}

/** The settings that HTTP reads. Paths and addresses as the operator wrote them. */
export interface HttpConfig {
  readonly host: string;
  readonly port: number;
  /** With either one set, administration answers on a listener of its own, and only there. */
  readonly adminHost: string | null;
  readonly adminPort: number | null;
  readonly publicUrl: string | null;
  /** CIDRs of the proxies whose word on who called is taken. */
  readonly trustProxies: readonly string[];
  /** The limits of all hooks together. */
  readonly hookLimits: HookTotals;
  /** Origins whose pages may call, beside the gateway's own. */
  readonly origins: readonly string[];
  /** Limits of clients, as `parseClientLimits` reads them. */
  readonly clientLimits: string;
  /** Files of the certificate and its key. */
  readonly tlsCert: string | null;
  readonly tlsKey: string | null;
}

/** Everything the HTTP layer works with. */
export interface HttpServices {
  readonly gateway: GatewayFace;
  readonly tokens: TokensFace;
  readonly config: HttpConfig;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  /** The text with its references replaced. Rejects when one is not there. */
  readonly resolve: (text: string) => Promise<string>;
  readonly fetch: Fetch;
  /** From 0 to 1. */
  readonly random: () => number;
  /** A new message's id. */
  readonly ids: () => string;
  readonly version: string;
}

/** What handlers have beside the services. */
export interface HttpContext extends HttpServices {
  /** Aborted when the server stops: waits end, streams close. */
  readonly stopping: AbortSignal;
  readonly previews: PreviewSlots;
  readonly callers: Callers;
  readonly tickets: Tickets;
  readonly clients: ClientCounts;
  readonly proxies: Proxies;
  readonly turns: ReadTurns;
  /** Unix milliseconds. */
  readonly startedAtMs: number;
}

/** A caller, as administration notes it beside a change. */
export function callerText(principal: Principal): string {
  return principal.role === null ? principal.subject : `token:${principal.name}`;
}
