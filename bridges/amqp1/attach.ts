/**
 * Opening a sender or a receiver, each in a session of its own: the library sends a session's
 * messages in one line, so one link without credit would hold up all others. A broker refuses a
 * place by attaching without a terminus and detaching with the reason, or by ending the session.
 */
import type { EventContext, Receiver, Sender, Session } from "rhea";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { Link } from "./link.ts";

/** How long the broker may take to answer an attach. Milliseconds. */
const ATTACH_WAIT_MS = 10_000;
/** How long a close waits for the broker's answer. Milliseconds. */
const DETACH_WAIT_MS = 2000;

/** What the broker said: the protocol's condition, and its own words. */
export interface Refusal {
  /** Such as `amqp:not-found`; empty when it gave none. */
  readonly condition: string;
  readonly text: string;
}

/** Conditions that pass by themselves: the same attach can succeed later. */
const PASSING: ReadonlySet<string> = new Set([
  "",
  "amqp:connection:forced",
  "amqp:link:detach-forced",
  "amqp:link:stolen",
  "amqp:internal-error",
  "amqp:resource-limit-exceeded",
]);

/** Whether the same attach can succeed later without anybody changing anything. */
export function isPassing({ condition }: Refusal): boolean {
  return PASSING.has(condition);
}

/** A sender or receiver that the broker has agreed to. */
export interface Attached<End extends Sender | Receiver> {
  readonly end: End;
  /**
   * Lets go of it; what is unsettled goes back. `keep`: a subscription stays at the broker.
   * Resolves when the broker has answered, or after a while.
   */
  close(keep?: boolean): Promise<void>;
}

/**
 * Opens one. `onClosed` is called once when the broker closes it later; the loss of the connection
 * is told by the link. Returns the refusal when the broker does not agree.
 * @throws DisconnectedError
 */
export async function attach<End extends Sender | Receiver>(
  link: Link,
  open: (session: Session) => End,
  onClosed: (refusal: Refusal) => void,
): Promise<Attached<End> | Refusal> {
  const session = link.session();
  const answer = Promise.withResolvers<Refusal | null>();
  const gone = Promise.withResolvers<void>();
  let isOpen = false;
  const closed = (refusal: Refusal): void => {
    gone.resolve();
    answer.resolve(refusal);
    if (isOpen) onClosed(refusal);
    isOpen = false;
  };
  const end = open(session);
  const prefix = end.is_sender() ? "sender" : "receiver";
  let refusal: Refusal | null = null;
  const note = (error: unknown): void => {
    refusal ??= refusalOf(error);
  };
  end.on(`${prefix}_open`, () => {
    // Without a terminus the detach with the reason follows.
    if (!isTerminus(end.is_sender() ? end.target : end.source)) return;
    isOpen = true;
    answer.resolve(null);
  });
  end.on(`${prefix}_error`, () => note(end.error));
  end.on(`${prefix}_close`, () => closed(refusal ?? refusalOf(end.error)));
  session.on("session_error", ({ session: failed }: EventContext) => note(failed?.error));
  session.on("session_close", () => closed(refusal ?? refusalOf(session.error)));
  const refused = await answered(answer.promise, link);
  if (refused !== null) {
    session.close();
    return refused;
  }
  const close = async (keep = false): Promise<void> => {
    isOpen = false;
    if (link.isLost || end.is_closed()) return;
    if (keep) end.detach();
    else end.close();
    await within(gone.promise, link, DETACH_WAIT_MS);
    if (!link.isLost) session.close();
  };
  return { end, close };
}

/** Whether the broker attached to a place; the library gives an absent one as a null with a type. */
function isTerminus(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return (value as { readonly value?: unknown }).value !== null;
}

/** Waits for the broker's answer. @throws DisconnectedError when there is none. */
async function answered(answer: Promise<Refusal | null>, link: Link): Promise<Refusal | null> {
  const result = await within(answer, link, ATTACH_WAIT_MS);
  if (result !== "late") return result;
  if (link.isLost) throw link.disconnected();
  throw new DisconnectedError("the broker did not answer in time");
}

async function within<T>(promise: Promise<T>, link: Link, ms: number): Promise<T | "late"> {
  const waiting = new AbortController();
  const late = systemClock
    .sleep(ms, AbortSignal.any([waiting.signal, link.ended]))
    .then(() => "late" as const);
  try {
    return await Promise.race([promise, late]);
  } finally {
    waiting.abort();
  }
}

/** What the protocol's error says. */
export function refusalOf(error: unknown): Refusal {
  if (typeof error !== "object" || error === null) {
    return { condition: "", text: "the broker closed the link" };
  }
  const { condition, description } = error as { condition?: unknown; description?: unknown };
  const word = typeof condition === "string" ? condition : "";
  const text = typeof description === "string" ? description.replaceAll(/\s*\n\s*/g, " ") : "";
  return { condition: word, text: [word, text].filter((part) => part !== "").join(": ") };
}
