/**
 * What an operator sends again: a dead letter (redriven) or a recorded message (replayed). It goes
 * out marked, by a header and in its origin, so that a receiver and the next stream can tell it
 * from the first time.
 */
import type { Outgoing } from "../bridge.ts";
import { textHeader } from "../message.ts";

/** Headers of what is sent again; their value says by what. */
export const AGAIN_HEADERS = { redrive: "isthmus-redriven", replay: "isthmus-replayed" } as const;

/** Why a message is sent again. */
export type AgainKind = keyof typeof AGAIN_HEADERS;

/** The name of one more sending: equal ones are one. `by`: the dead letter's place, or the job's. */
export function againName(kind: AgainKind, by: string): string {
  return `${kind} ${by}`;
}

/** An outgoing message with its mark. */
export function marked({ message, fields }: Outgoing, again: string): Outgoing {
  const space = again.indexOf(" ");
  const header = AGAIN_HEADERS[again.slice(0, space) as AgainKind];
  const { id, key, properties, headers, body, timestampMs, origin } = message;
  return {
    message: {
      id,
      key,
      properties,
      headers: [...headers, textHeader(header, again.slice(space + 1))],
      body,
      timestampMs,
      origin: origin === null ? null : { ...origin, again },
    },
    fields,
  };
}
