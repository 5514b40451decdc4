/**
 * Tests of rules, as files have them: a message, which rules match it, and what goes where. Pure:
 * a test is run over compiled rules that its caller brings, from a file or from a gateway.
 */
import { z } from "zod";
import { InvalidError } from "../errors.ts";
import { stringifyJson } from "../json.ts";
import { ruleTestsMax } from "./limits.ts";
import { encodeText, type Header, type Message, type StoredMessage } from "../message.ts";
import { diffValues } from "./diff.ts";
import type { Json } from "./document.ts";
import { Problems } from "./problems.ts";
import { readable } from "./readable.ts";
import {
  type Rehearsal,
  type ShownOutgoing,
  shownOutgoing,
  type TargetOutcome,
} from "./rehearsal.ts";
import * as shapes from "./shapes.ts";

/** A file of tests. */
export interface RuleTestFile {
  /** The file with the rules, as written: a path from the test file; null: a gateway's. */
  readonly definitions: string | null;
  readonly tests: readonly RuleTest[];
}

/** One test. At least one of `matches` and `deliveries` is there. */
export interface RuleTest {
  readonly name: string;
  readonly message: StoredMessage;
  /** Exactly these rules match. */
  readonly matches: readonly string[] | null;
  /** Exactly these come out, in any order; parts that are not named are not compared. */
  readonly deliveries: readonly ExpectedDelivery[] | null;
}

/** What goes to one target. */
export interface ExpectedDelivery {
  readonly rule: string;
  /** The target by its name, or by fields of its address. */
  readonly target?: string | undefined;
  readonly to?: Readonly<Record<string, unknown>> | undefined;
  readonly key?: unknown;
  readonly headers?: Readonly<Record<string, unknown>> | undefined;
  readonly properties?: Readonly<Record<string, unknown>> | undefined;
  readonly body?: unknown;
  /** A part of the reason why it can't be sent. */
  readonly refused?: string | undefined;
}

/** A rule that a test is run over. */
export interface TestedRule {
  readonly name: string;
  readonly stream: string;
  readonly enabled: boolean;
  readonly rehearsal: Rehearsal;
}

/** How a test went; `faults` is empty when it passed. */
export interface RuleTestResult {
  readonly name: string;
  readonly passed: boolean;
  readonly faults: readonly RuleTestFault[];
}

/** One thing that is not as expected: a sentence, and the lines that differ (`-` expected). */
export interface RuleTestFault {
  readonly sentence: string;
  readonly diff: readonly string[];
}

const messageShape = shapes.strict({
  stream: shapes.readableStream,
  id: z.string().optional(),
  key: z.union([z.null(), z.string()]).optional(),
  headers: z
    .record(z.string(), z.union([z.null(), z.string(), z.number(), z.boolean()]))
    .optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  params: z.record(z.string(), z.string()).optional(),
  body: z.unknown().optional(),
  bodyBase64: z.base64().optional(),
  timestamp: z.union([z.int(), z.iso.datetime({ offset: true })]).optional(),
  partition: z.int().min(0).optional(),
  offset: z.int().min(0).optional(),
});

const deliveryShape = shapes.strict({
  rule: shapes.name,
  target: z.string().optional(),
  to: z.record(z.string(), z.unknown()).optional(),
  key: z.unknown().optional(),
  headers: z.record(z.string(), z.unknown()).optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  body: z.unknown().optional(),
  refused: z.string().optional(),
});

const testShape = shapes.strict({
  name: z.string().min(1),
  message: messageShape,
  matches: z.array(shapes.name).optional(),
  deliveries: z.array(deliveryShape).optional(),
});

const fileShape = shapes.strict({
  definitions: z.string().min(1).optional(),
  tests: z.array(testShape).min(1).max(ruleTestsMax),
});

/** The time of a message that says none: tests do not depend on the day. */
const TIMESTAMP_MS = 1_767_225_600_000;

/** Reads a file of tests. @throws InvalidError with a pointer for each fault. */
export function parseTestFile(value: Json): RuleTestFile {
  const problems = new Problems();
  const shape = fileShape.safeParse(value);
  if (!shape.success) problems.addIssues(value, shape.error.issues);
  problems.throwIfAny("the tests");
  const { definitions = null, tests } = shape.data ?? { tests: [] };
  for (const [index, { matches, deliveries }] of tests.entries()) {
    if (matches !== undefined || deliveries !== undefined) continue;
    problems.add(`/tests/${index}`, "expected matches, deliveries or both");
  }
  problems.throwIfAny("the tests");
  return {
    definitions,
    tests: tests.map(({ name, message, matches = null, deliveries = null }) => {
      return { name, message: storedMessage(message), matches, deliveries };
    }),
  };
}

function storedMessage(given: z.infer<typeof messageShape>): StoredMessage {
  const { stream, id = "test", key = null, properties = {}, timestamp = TIMESTAMP_MS } = given;
  const timestampMs = typeof timestamp === "number" ? timestamp : Date.parse(timestamp);
  const origin = { bridge: "test", address: "test", partition: null, offset: null, hops: [] };
  const message: Message = {
    id,
    key: key === null ? null : encodeText(key),
    properties,
    headers: Object.entries(given.headers ?? {}).map(
      ([name, value]): Header => ({ name, value: value === null ? null : encodeText(`${value}`) }),
    ),
    body: bodyOf(given),
    timestampMs,
    origin: given.params === undefined ? null : { ...origin, params: given.params },
  };
  const { partition = 0, offset = 0 } = given;
  return Object.assign(readable(message), { stream, partition, offset, appendedAtMs: timestampMs });
}

/** Text is its UTF-8, null a tombstone, other data its compact JSON; none: an empty body. */
function bodyOf({ body, bodyBase64 }: z.infer<typeof messageShape>): Uint8Array | null {
  if (bodyBase64 !== undefined) return new Uint8Array(Buffer.from(bodyBase64, "base64"));
  if (body === undefined) return new Uint8Array(0);
  if (body === null) return null;
  return encodeText(typeof body === "string" ? body : stringifyJson(body));
}

/** Runs a test. @throws InvalidError it names a rule that is not there. */
export function runRuleTest(test: RuleTest, rules: readonly TestedRule[]): RuleTestResult {
  const { name, message, matches, deliveries } = test;
  const named = new Set([...(matches ?? []), ...(deliveries ?? []).map(({ rule }) => rule)]);
  for (const wanted of named) {
    if (rules.some((rule) => rule.name === wanted)) continue;
    throw new InvalidError(
      `test ${JSON.stringify(name)} names ${wanted}, and there is no such rule`,
    );
  }
  const outcomes = rules
    .filter(({ stream, enabled }) => enabled && stream === message.stream)
    .map((rule) => ({ rule: rule.name, ...rule.rehearsal.run(message) }));
  const matched = outcomes.filter(({ verdict }) => verdict === "yes");
  const faults: RuleTestFault[] = [];
  if (matches !== null) {
    const wanted = matches.toSorted();
    const found = matched.map(({ rule }) => rule).toSorted();
    const diff = diffValues(wanted, found);
    if (diff.length > 0) faults.push({ sentence: "other rules match than expected", diff });
  }
  if (deliveries !== null) {
    const actual = matched.flatMap(({ rule, targets }) =>
      targets.map((each) => ({ rule, ...each })),
    );
    faults.push(...compareDeliveries(deliveries, actual));
  }
  return { name, passed: faults.length === 0, faults };
}

type Actual = TargetOutcome & { readonly rule: string };

/** Each expected one takes the actual one that fits best; what is left on either side is a fault. */
function compareDeliveries(
  expected: readonly ExpectedDelivery[],
  actual: readonly Actual[],
): readonly RuleTestFault[] {
  const left = new Set(actual);
  const faults: RuleTestFault[] = [];
  const open: ExpectedDelivery[] = [];
  for (const each of expected) {
    const same = [...left].find((one) => isFor(each, one) && faultsOf(each, one).length === 0);
    if (same === undefined) open.push(each);
    else left.delete(same);
  }
  for (const each of open) {
    const nearest =
      [...left].find((one) => isFor(each, one)) ?? [...left].find(({ rule }) => rule === each.rule);
    if (nearest === undefined) {
      const { rule, ...rest } = each;
      faults.push({
        sentence: `rule ${rule}: this is not delivered`,
        diff: diffValues(rest, null),
      });
      continue;
    }
    left.delete(nearest);
    faults.push(...faultsOf(each, nearest));
  }
  for (const one of left) {
    const sentence = `rule ${one.rule}: ${one.target} gets a message that is not expected`;
    const shown = one.refused === null ? shownOutgoing(one, true) : { refused: one.refused };
    faults.push({ sentence, diff: diffValues(null, shown) });
  }
  return faults;
}

function isFor(expected: ExpectedDelivery, actual: Actual): boolean {
  if (expected.rule !== actual.rule) return false;
  if (expected.target !== undefined) return expected.target === actual.target;
  const { to } = expected;
  if (to === undefined) return true;
  const shown = shownOutgoing(actual, false)?.to ?? null;
  return shown !== null && diffValues(to, pickedFrom(shown, to)).length === 0;
}

function faultsOf(expected: ExpectedDelivery, actual: Actual): readonly RuleTestFault[] {
  const where = `rule ${actual.rule}: ${actual.target}`;
  const { refused } = expected;
  if (refused !== undefined) {
    if (actual.refused?.includes(refused) === true) return [];
    const diff = diffValues({ refused }, { refused: actual.refused });
    return [{ sentence: `${where} is not refused as expected`, diff }];
  }
  if (actual.refused !== null) {
    return [{ sentence: `${where} is refused: ${actual.refused}`, diff: [] }];
  }
  const shown = shownOutgoing(actual, false);
  if (shown === null) return [{ sentence: `${where} gets nothing`, diff: [] }];
  const wanted = wantedOf(expected);
  const diff = diffValues(wanted, foundFor(wanted, { shown, actual }));
  return diff.length === 0 ? [] : [{ sentence: `${where} gets something else`, diff }];
}

type Wanted = Partial<Record<keyof ShownOutgoing, unknown>>;

/** What is compared, in a fixed order; header values are text whatever YAML made of them. */
function wantedOf({ to, key, headers, properties, body }: ExpectedDelivery): Wanted {
  return {
    ...(to === undefined ? {} : { to }),
    ...(key === undefined ? {} : { key }),
    ...(headers === undefined ? {} : { headers: headerTexts(headers) }),
    ...(properties === undefined ? {} : { properties: sorted(properties) }),
    ...(body === undefined ? {} : { body: sorted(body) }),
  };
}

function foundFor(
  wanted: Wanted,
  { shown, actual }: { readonly shown: ShownOutgoing; readonly actual: Actual },
): Wanted {
  const { body } = wanted;
  const bytes = actual.outgoing?.message.body ?? null;
  // Text that happens to be JSON is compared as the text that the test says.
  const isText = typeof body === "string" && bytes !== null;
  const parts: Record<keyof ShownOutgoing, unknown> = {
    to: pickedFrom(shown.to, (wanted.to ?? {}) as Readonly<Record<string, unknown>>),
    key: shown.key,
    headers: Array.isArray(shown.headers) ? shown.headers : sorted(lowerNames(shown.headers)),
    properties: sorted(shown.properties),
    body: isText ? Buffer.from(bytes).toString("utf8") : sorted(shown.body),
  };
  const named = Object.keys(wanted) as (keyof ShownOutgoing)[];
  return Object.fromEntries(named.map((name) => [name, parts[name]]));
}

/** The members of a map that another one names, in that one's order. */
function pickedFrom(
  shown: Readonly<Record<string, unknown>>,
  named: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.keys(named).map((name) => [name, shown[name]]));
}

function headerTexts(headers: Readonly<Record<string, unknown>>): unknown {
  const texts = Object.entries(headers).map(([name, value]) => {
    const isScalar = typeof value === "number" || typeof value === "boolean";
    return [name, isScalar ? String(value) : value] as const;
  });
  return sorted(lowerNames(Object.fromEntries(texts)));
}

function lowerNames(headers: unknown): unknown {
  const entries = Object.entries(headers as Readonly<Record<string, unknown>>);
  return Object.fromEntries(entries.map(([name, value]) => [name.toLowerCase(), value]));
}

/** Equal data with equal text: maps with their names in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, member]) => [name, sorted(member)]));
}
