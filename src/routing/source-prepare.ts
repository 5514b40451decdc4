/**
 * What becomes of a message between a source and its stream: the way that it has taken goes from
 * its header into its origin, an event gives it its type and key, and `key` and `dedupe` of the
 * source's document are evaluated. Never throws.
 */
import type { EventBinding } from "../bridge.ts";
import { withEvent } from "../cloudevents/read.ts";
import type { SourceDocument } from "../rules/document.ts";
import { compileExpression, type Expression } from "../rules/expression.ts";
import { arrived } from "./hops.ts";
import type { Intake } from "./ingest.ts";
import { dedupeFrom, keyFrom, withKey } from "./keys.ts";

/** Prepares the messages of one source. `failed` is told of each expression that fails. */
export function sourcePrepare(
  document: Pick<SourceDocument, "key" | "dedupe">,
  source: {
    readonly name: string;
    /** How its bridge carries events; undefined: it carries none. */
    readonly events: EventBinding | undefined;
    readonly failed: () => void;
  },
): Intake["prepare"] {
  const { events, failed } = source;
  const key = compiled(document.key);
  const dedupe = compiled(document.dedupe);
  return (given) => {
    const came = arrived(given);
    const message = events === undefined ? came : withEvent(came, events);
    return {
      message: key === null ? message : withKey(message, keyFrom(key, message, failed)),
      dedupeKey: dedupe === null ? null : dedupeFrom(dedupe, message, source),
    };
  };
}

function compiled(source: string | null): Expression | null {
  return source === null ? null : compileExpression(source, { stored: false });
}
