/**
 * What a rule may say for all its targets, and a target for itself: `format: cloudevents` and
 * `echo: drop`. A rule's `format` is for its bridges; streams of the log take no format.
 */
import { z } from "zod";
import type { JsonObject, TargetDocument } from "./document.ts";
import { findModule, type ParseContext } from "./place.ts";
import type { Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";

/** The keys that this file parses. */
export const OPTION_KEYS: readonly string[] = ["format", "echo"];

/** What they come to. */
export type TargetOptions = Pick<TargetDocument, "format" | "echo">;

const formatShape = z.union([
  shapes.word(["cloudevents"]).transform(() => ({ mode: "binary" as const })),
  shapes.strict({
    type: shapes.word(["cloudevents"]).optional(),
    mode: shapes.word(["binary", "structured"]),
  }),
]);
const echoShape = shapes.word(["drop"]);

const FORMAT_FORM = "expected cloudevents, or { type: cloudevents, mode: binary or structured }";

/** The options that a rule or a target names, else the defaults. `pointer` is to what holds them. */
export function parseOptions(
  { format, echo }: JsonObject,
  defaults: TargetOptions | null,
  { pointer, problems }: { readonly pointer: string; readonly problems: Problems },
): TargetOptions {
  const options: { -readonly [Name in keyof TargetOptions]: TargetOptions[Name] } = {};
  if (defaults?.format !== undefined) options.format = defaults.format;
  if (defaults?.echo !== undefined) options.echo = defaults.echo;
  if (format !== undefined) {
    const parsed = formatShape.safeParse(format);
    if (parsed.success) options.format = parsed.data.mode;
    else problems.add(`${pointer}/format`, FORMAT_FORM);
  }
  if (echo !== undefined) {
    const parsed = echoShape.safeParse(echo);
    if (parsed.success) options.echo = parsed.data;
    else problems.addIssues(echo, parsed.error.issues, `${pointer}/echo`);
  }
  return options;
}

/** The options as they are for one target: whether its bridge can take the format. */
export function optionsFor(
  to: TargetDocument["to"],
  options: TargetOptions,
  at: {
    readonly pointer: string;
    readonly problems: Problems;
    readonly context: ParseContext;
    /** The target names a format itself. */
    readonly isOwn: boolean;
  },
): TargetOptions {
  const { format, ...others } = options;
  if (format === undefined) return others;
  if (!("stream" in to) && findModule(at.context.modules, to.kind)?.events !== undefined) {
    return options;
  }
  if (at.isOwn) {
    const what = "stream" in to ? "a stream of the log" : `a bridge of kind ${to.kind}`;
    at.problems.add(
      `${at.pointer}/format`,
      `${what} takes no format; its messages stay as they are`,
    );
  }
  return others;
}
