/**
 * Parsers of the documents of bridges, streams and sources; hooks, rules and access have files of
 * their own. Each gives null when something is wrong, which is then among the problems.
 */
import { z } from "zod";
import { partitionsMax } from "../limits.ts";
import type {
  BridgeDocument,
  JsonObject,
  Retention,
  SourceDocument,
  StreamDocument,
} from "./document.ts";
import { compileExpression } from "./expression.ts";
import { findModule, isObject, type ParseContext, parsePlace } from "./place.ts";
import { type Problems, shown } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { didYouMean } from "./suggest.ts";

const DAY_MS = 86_400_000;
const GIB = 1024 ** 3;
/** What a stream keeps when nothing is said. */
const RETENTION_DEFAULT: Retention = {
  ageMs: 7 * DAY_MS,
  bytes: 10 * GIB,
  messages: null,
  afterRouted: false,
  keepMs: 0,
  whenFull: "block",
};
/** The stream that exists because something names it: one partition, the default retention. */
export const STREAM_DEFAULT: StreamDocument = {
  partitions: 1,
  retention: RETENTION_DEFAULT,
  indexKey: false,
};
/** Bridges that the contract names and that may not be built in. */
const LATER_KINDS = ["kafka", "amqp", "amqp1", "artemis", "mqtt", "http", "rabbitmq"];

/** Parses the document of a bridge. */
export function parseBridge(
  document: JsonObject,
  context: ParseContext,
  problems: Problems,
): BridgeDocument | null {
  const { kind, ...rest } = document;
  const module = typeof kind === "string" ? findModule(context.modules, kind) : null;
  if (module === null) {
    problems.add("/kind", unknownKind(kind, context));
    return null;
  }
  const config = problems.check("", () => ({ value: module.parseConfig(rest) }));
  return config === null ? null : { kind: module.kind, config: config.value };
}

function unknownKind(kind: unknown, context: ParseContext): string {
  // A module may stand in the map under its other names too.
  const names = [...context.modules.values()].flatMap((each) => [
    each.kind,
    ...(each.aliases ?? []),
  ]);
  const known = [...new Set(names)];
  if (typeof kind !== "string")
    return `expected a kind of bridge (${known.join(", ")}), found ${shown(kind)}`;
  if (LATER_KINDS.includes(kind)) return shapes.notAvailable(`kind ${kind}`);
  const near = didYouMean(kind, known) || `; known are ${known.join(", ")}`;
  return `there is no kind of bridge ${JSON.stringify(kind)}${near}`;
}

const retentionShape = shapes.strict({
  age: z.union([z.null(), shapes.positiveDurationMs]).optional(),
  bytes: z.union([z.null(), shapes.byteCount]).optional(),
  messages: z.union([z.null(), z.int().min(1)]).optional(),
  after: shapes.word(["routed"]).optional(),
  keep: shapes.durationMs.optional(),
  whenFull: shapes.word(["block", "dropOldest"]).optional(),
});

const streamShape = shapes.strict({
  partitions: z.int().min(1).max(partitionsMax).optional(),
  retention: retentionShape.optional(),
  index: z.array(shapes.word(["key"])).optional(),
});

/** Parses the document of a stream. */
export function parseStream(
  document: JsonObject,
  _context: ParseContext,
  problems: Problems,
): StreamDocument | null {
  const shape = streamShape.safeParse(document);
  if (!shape.success) {
    problems.addIssues(document, shape.error.issues);
    return null;
  }
  const { partitions, retention, index } = shape.data;
  return {
    partitions: partitions ?? STREAM_DEFAULT.partitions,
    retention: retention === undefined ? RETENTION_DEFAULT : retentionOf(retention),
    indexKey: index?.includes("key") ?? false,
  };
}

/** Naming one bound removes the others' defaults, and so does what is kept until it is routed. */
function retentionOf(named: z.infer<typeof retentionShape>): Retention {
  const isNamed = ["age", "bytes", "messages", "after"].some((key) => key in named);
  return {
    ageMs: isNamed ? (named.age ?? null) : RETENTION_DEFAULT.ageMs,
    bytes: isNamed ? (named.bytes ?? null) : RETENTION_DEFAULT.bytes,
    messages: named.messages ?? null,
    afterRouted: named.after === "routed",
    keepMs: named.keep ?? RETENTION_DEFAULT.keepMs,
    whenFull: named.whenFull ?? RETENTION_DEFAULT.whenFull,
  };
}

function sourceShape(nowMs: number | null) {
  return shapes.strict({
    from: z.record(z.string(), z.unknown()),
    stream: shapes.name,
    key: shapes.expression.optional(),
    dedupe: shapes.expression.optional(),
    start: shapes.start(nowMs).optional(),
  });
}

/** Parses the document of a source. */
export function parseSource(
  document: JsonObject,
  context: ParseContext,
  problems: Problems,
): SourceDocument | null {
  const shape = sourceShape(context.nowMs ?? null).safeParse(document);
  if (!shape.success) problems.addIssues(document, shape.error.issues);
  const { key, dedupe, from } = document;
  checkEarly("/key", key, problems);
  checkEarly("/dedupe", dedupe, problems);
  const use = { end: "source", taken: [] } as const;
  const place = isObject(from)
    ? parsePlace(from, use, { pointer: "/from", problems, context })
    : null;
  if (!shape.success || place === null) return null;
  const { data } = shape;
  return {
    from: place,
    stream: data.stream,
    key: data.key ?? null,
    dedupe: data.dedupe ?? null,
    start: data.start ?? "latest",
  };
}

/** Checks an expression that runs before the message is stored. */
export function checkEarly(pointer: string, source: unknown, problems: Problems): void {
  if (typeof source !== "string") return;
  problems.check(pointer, () => compileExpression(source, { stored: false }));
}
