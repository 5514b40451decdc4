/**
 * What goes out of a message by one target: rendered, held against the way that it has taken, and
 * given that way on its way out.
 */
import type { Outgoing } from "../bridge.ts";
import { errorText } from "../errors.ts";
import type { StoredMessage } from "../message.ts";
import { strictRefusal } from "../rules/strict.ts";
import { marked } from "./again.ts";
import type { Trail } from "./hops.ts";
import type { RunningRevision } from "./route-parts.ts";
import { partsOf, type Work } from "./work.ts";

/** What goes out of a message, and when; `broken`: why it can't be made. */
export function made(
  message: StoredMessage,
  { target, trail, lossesOf }: RunningRevision,
  again: string | null,
): Pick<Work, "outgoing" | "parts" | "broken" | "notBeforeMs"> {
  try {
    const all = target.renderAll === null ? [target.render(message)] : target.renderAll(message);
    const sent = again === null ? all : all.map((each) => marked(each, again));
    const way = trail === null ? null : wayRound(trail, message, all);
    if (way !== null) return stopped(way, target.document.echo === "drop");
    const isStrict = target.document.strict === true;
    const refusal = isStrict ? strictRefusal(sent.flatMap(lossesOf)) : null;
    if (refusal !== null) return { outgoing: null, parts: null, broken: refusal, notBeforeMs: 0 };
    return {
      outgoing: sent[0] ?? null,
      parts: target.renderAll === null ? null : sent,
      broken: sent.length === 0 ? "each: the list is empty" : null,
      // What an operator sends again has had its time.
      notBeforeMs: again === null ? target.notBeforeMs(message) : 0,
    };
  } catch (error) {
    return { outgoing: null, parts: null, broken: errorText(error), notBeforeMs: 0 };
  }
}

/** The way of a message that would go round, or null. */
function wayRound(
  trail: Trail,
  message: StoredMessage,
  all: readonly Outgoing[],
): readonly string[] | null {
  for (const outgoing of all) {
    const way = trail.loop(message, outgoing);
    if (way !== null) return way;
  }
  return null;
}

/** A message that would go round: an echo is left out, any other has failed for good. */
function stopped(
  way: readonly string[],
  isEcho: boolean,
): Pick<Work, "outgoing" | "parts" | "broken" | "notBeforeMs"> {
  const broken = `a loop: ${way.join(" → ")}`;
  return { outgoing: null, parts: isEcho ? [] : null, broken, notBeforeMs: 0 };
}

/** All that goes out for a message, with the way that it has taken, in its lane. */
export function leaving(work: Work, { trail, failure }: RunningRevision): readonly Outgoing[] {
  const parts = partsOf(work);
  const left = trail === null ? parts : parts.map((part) => trail.leave(work.message, part));
  if (failure !== "lanes") return left;
  return left.map(({ message, fields }) => ({ message, fields, lane: work.lane }));
}
