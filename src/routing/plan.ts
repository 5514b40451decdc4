/**
 * From definitions to what shall run: sources (those written, and those that rules imply by naming
 * an address) and rules by the stream that they read. Pure: the gateway compares two plans.
 */
import type {
  BridgeAddress,
  Definition,
  Definitions,
  RuleDocument,
  SourceDocument,
  Start,
} from "../rules/document.ts";

/** A source that shall run. Equal identities are the same source. */
export interface PlannedSource {
  readonly name: string;
  readonly document: SourceDocument;
  readonly identity: string;
}

/** A rule and the stream that it reads. */
export interface PlannedRule {
  readonly name: string;
  readonly stream: string;
  readonly definition: Definition<RuleDocument>;
}

/** Everything that shall run. */
export interface Plan {
  readonly sources: ReadonlyMap<string, PlannedSource>;
  readonly rules: readonly PlannedRule[];
}

const NAME_MAX = 100;

/** The name of the source, and of its stream, that a rule implies by naming an address. */
export function impliedName(address: BridgeAddress): string {
  const slug = address.text.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replaceAll(/^-|-$/g, "");
  const plain = `${address.bridge}.${slug}`;
  const isFaithful = slug === address.text.replaceAll(" ", "-") && plain.length <= NAME_MAX;
  if (isFaithful) return plain;
  const mark = Bun.hash.crc32(address.text).toString(16).padStart(8, "0");
  return `${plain.slice(0, NAME_MAX - 9)}-${mark}`;
}

/** Plans a set of definitions. */
export function planOf(definitions: Definitions): Plan {
  const sources = new Map<string, PlannedSource>();
  const byAddress = new Map<string, PlannedSource>();
  for (const { name, parsed } of definitions.sources.values()) {
    const planned = plannedSource(name, parsed);
    sources.set(name, planned);
    byAddress.set(addressKey(parsed.from), planned);
  }
  const starts = impliedStarts(definitions);
  const rules: PlannedRule[] = [];
  for (const definition of definitions.rules.values()) {
    const { name, parsed } = definition;
    if ("stream" in parsed.from) {
      rules.push({ name, stream: parsed.from.stream, definition });
      continue;
    }
    const key = addressKey(parsed.from);
    let source = byAddress.get(key);
    if (source === undefined) {
      source = impliedSource(parsed.from, starts.get(key) ?? "latest");
      byAddress.set(key, source);
      sources.set(source.name, source);
    }
    rules.push({ name, stream: source.document.stream, definition });
  }
  return { sources, rules };
}

function addressKey(address: BridgeAddress): string {
  return `${address.bridge}\n${address.text}`;
}

function plannedSource(name: string, document: SourceDocument): PlannedSource {
  return { name, document, identity: JSON.stringify(document) };
}

function impliedSource(from: BridgeAddress, start: Start): PlannedSource {
  const name = impliedName(from);
  return plannedSource(name, { from, stream: name, key: null, dedupe: null, start });
}

/** A source that several rules imply starts where the earliest of them wants. */
function impliedStarts(definitions: Definitions): Map<string, Start> {
  const starts = new Map<string, Start>();
  for (const { parsed } of definitions.rules.values()) {
    if ("stream" in parsed.from) continue;
    const key = addressKey(parsed.from);
    starts.set(key, earlier(starts.get(key) ?? "latest", parsed.start));
  }
  return starts;
}

function earlier(a: Start, b: Start): Start {
  if (a === "earliest" || b === "earliest") return "earliest";
  if (a === "latest") return b;
  if (b === "latest") return a;
  return a.timestampMs <= b.timestampMs ? a : b;
}
