/**
 * A rule run over a message without sending: whether it matches, and for each target what would
 * go where or why it would be refused. Previews, explanations and tests of rules all look here, so
 * they can't say different things; routes run the same compiled rule.
 */
import { isUtf8 } from "node:buffer";
import type { BridgeModule, Outgoing } from "../bridge.ts";
import { InvalidError } from "../errors.ts";
import { shownBodyCharsMax } from "./limits.ts";
import type { Header, Properties, StoredMessage } from "../message.ts";
import type { Definitions, RuleDocument } from "./document.ts";
import type { Verdict } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { readable } from "./readable.ts";
import { strictRefusal } from "./strict.ts";
import { hasExpression } from "./template.ts";
import { type CompiledTarget, compileRule } from "./transform.ts";

/** What would become of a message at one target. */
export interface TargetOutcome {
  readonly target: string;
  /** The target's bridge and kind; null for a stream. */
  readonly bridge: { readonly name: string; readonly kind: string } | null;
  /** What would be sent; null when it could not be made. */
  readonly outgoing: Outgoing | null;
  /** Why it would not be taken; null when nothing is known against it. */
  readonly refused: string | null;
  /** What would be lost of it on the way, one short text for each. */
  readonly losses: readonly string[];
}

/** What would become of a message. */
export interface RuleOutcome {
  readonly verdict: Verdict;
  /** In the order of the rule's targets; empty unless the verdict is yes. */
  readonly targets: readonly TargetOutcome[];
}

/** The bridges that a rehearsed rule may send to. */
export interface RehearsalBridges {
  readonly modules: ReadonlyMap<string, BridgeModule>;
  /** The parsed configuration of a bridge; undefined: there is none of that name. */
  readonly configOf: (bridge: string) => unknown;
}

/** The bridges of a set of definitions. */
export function bridgesOf(
  { bridges }: Pick<Definitions, "bridges">,
  modules: ReadonlyMap<string, BridgeModule>,
): RehearsalBridges {
  return { modules, configOf: (name) => bridges.get(name)?.parsed.config };
}

/** A rule to be run without sending. Pure, as the rule itself is. */
export class Rehearsal {
  readonly #rule: ReturnType<typeof compileRule>;
  readonly #modules: ReadonlyMap<string, BridgeModule>;
  readonly #configOf: (bridge: string) => unknown;
  /** Targets whose address was checked when the rule was: no message changes it. */
  readonly #fixed: ReadonlySet<string>;

  /** @throws InvalidError, NotFoundError as `compileRule`. */
  constructor(name: string, document: RuleDocument, { modules, configOf }: RehearsalBridges) {
    this.#configOf = configOf;
    this.#rule = compileRule(name, document, modules);
    this.#modules = modules;
    const isFixed = ({ document: { to } }: CompiledTarget): boolean =>
      !("fields" in to) || !hasExpression(JSON.stringify(to.fields));
    this.#fixed = new Set(this.#rule.targets.filter(isFixed).map(({ name: own }) => own));
  }

  /** A disabled rule is run as if it were enabled. */
  run(message: StoredMessage): RuleOutcome {
    const verdict = this.#rule.matches(message);
    if (verdict !== "yes") return { verdict, targets: [] };
    return { verdict, targets: this.targets(message) };
  }

  /** What the targets would get, whether the rule matches or not. */
  targets(message: StoredMessage): readonly TargetOutcome[] {
    return this.#rule.targets.map((target) => this.#at(target, message));
  }

  #at(target: CompiledTarget, message: StoredMessage): TargetOutcome {
    const { to } = target.document;
    const bridge = "stream" in to ? null : { name: to.bridge, kind: to.kind };
    const about = { target: target.name, bridge };
    try {
      const outgoing = target.render(message);
      const address = this.#refusal(target, outgoing);
      const { refused, losses } = this.#translated(target, outgoing, message.appendedAtMs);
      return { ...about, outgoing, refused: address ?? refused, losses };
    } catch (cause) {
      if (!(cause instanceof EvaluationError)) throw cause;
      return { ...about, outgoing: null, refused: cause.message, losses: [] };
    }
  }

  /** What the bridge's codec says of the message. */
  #translated(
    { document: { to, strict, batch } }: CompiledTarget,
    { message }: Outgoing,
    nowMs: number,
  ): Pick<TargetOutcome, "refused" | "losses"> {
    const config = "stream" in to ? undefined : this.#configOf(to.bridge);
    const translation = "stream" in to ? undefined : this.#modules.get(to.kind)?.translation;
    if (config === undefined || translation === undefined) return { refused: null, losses: [] };
    const refused = translation.refusal(message, config, nowMs, batch?.as);
    const losses = translation.losses(message, config, batch?.as);
    const isRefused = refused === null && strict === true;
    return {
      refused: isRefused ? strictRefusal(losses) : refused,
      losses: losses.map(({ what }) => what),
    };
  }

  /** What the bridge's own rules for addresses say of one that came from a message. */
  #refusal(target: CompiledTarget, { fields }: Outgoing): string | null {
    const { to } = target.document;
    if ("stream" in to || this.#fixed.has(target.name)) return null;
    try {
      this.#modules.get(to.kind)?.parseAddress(fields, "sink");
      return null;
    } catch (cause) {
      if (!(cause instanceof InvalidError)) throw cause;
      const [first] = cause.errors;
      return first === undefined ? cause.message : `${first.pointer.slice(1)}: ${first.detail}`;
    }
  }
}

/** A message on its way out as plain data that people can read and compare. */
export interface ShownOutgoing {
  readonly to: Readonly<Record<string, unknown>>;
  readonly key: unknown;
  /** By name; a list of pairs when a name repeats. */
  readonly headers: unknown;
  readonly properties: Readonly<Record<string, unknown>>;
  /** Parsed when it is JSON; null is a tombstone. */
  readonly body: unknown;
}

/** The plain form. With `bounded` a long body is cut, and says so. */
export function shownOutgoing(outcome: TargetOutcome, bounded: boolean): ShownOutgoing | null {
  const { outgoing, bridge } = outcome;
  if (outgoing === null) return null;
  const { message, fields } = outgoing;
  return {
    to: { ...(bridge === null ? {} : { bridge: bridge.name }), ...fields },
    key: shownBytes(message.key),
    headers: shownHeaders(message.headers),
    properties: shownProperties(message.properties),
    body: shownBody(outgoing, bounded),
  };
}

/** Whether two targets would get the same bytes at the same place. */
export function isSameOutgoing(left: Outgoing, right: Outgoing): boolean {
  const a = left.message;
  const b = right.message;
  return (
    isSameBytes(a.key, b.key) &&
    isSameBytes(a.body, b.body) &&
    JSON.stringify(left.fields) === JSON.stringify(right.fields) &&
    JSON.stringify(shownProperties(a.properties)) ===
      JSON.stringify(shownProperties(b.properties)) &&
    a.headers.length === b.headers.length &&
    a.headers.every(({ name, value }, index) => {
      const other = b.headers[index];
      return other?.name === name && isSameBytes(value, other.value);
    })
  );
}

function isSameBytes(left: Uint8Array | null, right: Uint8Array | null): boolean {
  if (left === null || right === null) return left === right;
  return left === right || Buffer.compare(left, right) === 0;
}

function shownHeaders(headers: readonly Header[]): unknown {
  const pairs = headers.map(({ name, value }) => [name, shownBytes(value)] as const);
  const isUnique = new Set(headers.map(({ name }) => name)).size === headers.length;
  return isUnique ? Object.fromEntries(pairs) : pairs;
}

function shownProperties(properties: Properties): Readonly<Record<string, unknown>> {
  const entries = Object.entries(properties).map(([name, value]: [string, unknown]) => {
    return [name, value instanceof Uint8Array ? shownBytes(value) : value] as const;
  });
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function shownBody({ message }: Outgoing, bounded: boolean): unknown {
  const { body } = message;
  if (bounded && body !== null && body.length > shownBodyCharsMax) {
    const start = shownBytes(body.subarray(0, shownBodyCharsMax));
    return { cut: start, bytes: body.length };
  }
  const { json } = readable(message);
  return json === undefined ? shownBytes(body) : json;
}

/** Text where the bytes are UTF-8, else `{ base64 }`. */
function shownBytes(bytes: Uint8Array | null): unknown {
  if (bytes === null) return null;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return isUtf8(buffer) ? buffer.toString("utf8") : { base64: buffer.toString("base64") };
}
