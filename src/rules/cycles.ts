/**
 * Cycles in the rules: streams, and what rules make of them, back to where it began, through
 * bridges as far as addresses tell. Refused when rules are saved, unless a target on the way says
 * `echo: drop`. What hangs on a message (`${…}` in an address) is left to the run time's hops.
 */
import type { BridgeModule } from "../bridge.ts";
import { InvalidError } from "../errors.ts";
import { brokersOf } from "./cycles-brokers.ts";
import type {
  BridgeAddress,
  Definition,
  Definitions,
  RuleDocument,
  SourceDocument,
  TargetDocument,
} from "./document.ts";
import { hasExpression } from "./template.ts";

/** Steps that are told from each end of a long cycle. Count. */
const PATH_END_STEPS = 8;

/** A rule's way from the stream that it reads. */
interface Step {
  readonly rule: string;
  /** What it sends to, in words. */
  readonly by: string;
  readonly to: string;
}

/** A step, and the one before it. */
interface Way {
  readonly step: Step;
  readonly before: Way | null;
}

/** A source, written or implied by a rule, and the node that it fills. */
interface Filled {
  readonly from: BridgeAddress;
  readonly node: string;
}

/**
 * Refuses a set of definitions whose change closes a cycle. What was there before is not looked at
 * again. @throws InvalidError `definition-invalid`, naming the path of rules.
 */
export function refuseCycles(
  next: Definitions,
  before: Definitions,
  modules: ReadonlyMap<string, BridgeModule>,
): void {
  const changed = changedRules(next, before);
  if (changed.length === 0) return;
  const graph = new Graph(next, modules);
  for (const rule of changed) {
    const path = graph.cycleThrough(rule);
    if (path === null) continue;
    const ways = wordsOf(path).join(" → ");
    const detail = `the rules make a cycle: ${graph.nodeOf(rule)} → ${ways}; say echo: drop on one of them, or send elsewhere`;
    throw new InvalidError(
      `rule ${rule.name}: ${detail}`,
      [{ pointer: `/rules/${rule.name}/to`, detail }],
      { code: "definition-invalid" },
    );
  }
}

/** A path in words, its middle left out where it is long. */
function wordsOf(path: readonly Step[]): readonly string[] {
  const words = path.map(({ rule, by }) => `rule ${rule} → ${by}`);
  if (words.length <= 2 * PATH_END_STEPS) return words;
  const left = words.length - 2 * PATH_END_STEPS;
  return [...words.slice(0, PATH_END_STEPS), `… ${left} more …`, ...words.slice(-PATH_END_STEPS)];
}

/** The rules through which a change may have closed a cycle. */
function changedRules(next: Definitions, before: Definitions): readonly Definition<RuleDocument>[] {
  const rules = [...next.rules.values()].filter(({ parsed }) => parsed.enabled);
  const differs = <T>(a: ReadonlyMap<string, T>, b: ReadonlyMap<string, T>): boolean =>
    [...a].some(([name, one]) => b.get(name) !== one);
  const isWide = differs(next.bridges, before.bridges) || differs(next.sources, before.sources);
  return isWide ? rules : rules.filter((rule) => before.rules.get(rule.name) !== rule);
}

/** Streams as nodes, rules as the ways between them; ways are found when they are asked for. */
class Graph {
  readonly #modules: ReadonlyMap<string, BridgeModule>;
  readonly #brokers: ReadonlyMap<string, string>;
  readonly #rules = new Map<string, Definition<RuleDocument>[]>();
  readonly #filled = new Map<string, Filled[]>();
  readonly #sources = new Map<string, string>();
  readonly #steps = new Map<string, readonly Step[]>();

  constructor(definitions: Definitions, modules: ReadonlyMap<string, BridgeModule>) {
    this.#modules = modules;
    this.#brokers = brokersOf(definitions.bridges);
    for (const { parsed } of definitions.sources.values()) this.#addSource(parsed);
    for (const rule of definitions.rules.values()) {
      if (!rule.parsed.enabled) continue;
      const { from } = rule.parsed;
      const node = this.nodeOf(rule);
      this.#rules.set(node, [...(this.#rules.get(node) ?? []), rule]);
      if ("stream" in from || this.#sources.has(addressKey(from))) continue;
      this.#sources.set(addressKey(from), node);
      this.#fill({ from, node });
    }
  }

  /** The node of what a rule reads: a stream, or the place that it names. */
  nodeOf({ parsed: { from } }: Definition<RuleDocument>): string {
    if ("stream" in from) return `stream ${from.stream}`;
    return this.#sources.get(addressKey(from)) ?? `${from.bridge} ${from.text}`;
  }

  /** The shortest way from a rule back to what it reads; null when there is none. */
  cycleThrough(rule: Definition<RuleDocument>): readonly Step[] | null {
    const home = this.nodeOf(rule);
    const ways: Way[] = this.#stepsOf(rule).map((step) => ({ step, before: null }));
    const seen = new Set<string>();
    for (const way of ways) {
      const { to } = way.step;
      if (to === home) return stepsOn(way);
      if (seen.has(to)) continue;
      seen.add(to);
      for (const step of this.#stepsFrom(to)) ways.push({ step, before: way });
    }
    return null;
  }

  #addSource({ from, stream }: SourceDocument): void {
    const node = `stream ${stream}`;
    this.#sources.set(addressKey(from), node);
    this.#fill({ from, node });
  }

  #fill(filled: Filled): void {
    const broker = this.#broker(filled.from);
    this.#filled.set(broker, [...(this.#filled.get(broker) ?? []), filled]);
  }

  #broker({ bridge, kind }: BridgeAddress): string {
    return `${kind} ${this.#brokers.get(bridge) ?? bridge}`;
  }

  #stepsFrom(node: string): readonly Step[] {
    const known = this.#steps.get(node);
    if (known !== undefined) return known;
    const steps = (this.#rules.get(node) ?? []).flatMap((rule) => this.#stepsOf(rule));
    this.#steps.set(node, steps);
    return steps;
  }

  #stepsOf({ name, parsed }: Definition<RuleDocument>): readonly Step[] {
    return parsed.to.flatMap((target) => this.#stepsBy(name, target));
  }

  #stepsBy(rule: string, { to, echo }: TargetDocument): readonly Step[] {
    if (echo === "drop") return [];
    if ("stream" in to) {
      const by = `stream ${to.stream}`;
      return hasExpression(to.stream) ? [] : [{ rule, by, to: by }];
    }
    const places = this.#modules.get(to.kind)?.places;
    if (places === undefined) return [];
    const read = this.#filled.get(this.#broker(to)) ?? [];
    return read
      .filter(({ from }) => places.feeds(to.fields, from.fields))
      .map(({ node }) => {
        const place = `${to.bridge} ${to.text}`;
        return { rule, by: place === node ? place : `${place} → ${node}`, to: node };
      });
  }
}

function addressKey({ bridge, text }: BridgeAddress): string {
  return `${bridge}\n${text}`;
}

function stepsOn(last: Way): readonly Step[] {
  const steps: Step[] = [];
  for (let way: Way | null = last; way !== null; way = way.before) steps.push(way.step);
  return steps.toReversed();
}
