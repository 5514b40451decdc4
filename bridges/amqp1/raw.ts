/**
 * Makes a session hand out messages as their bytes. The client library decodes messages of format 0
 * into plain objects and forgets their types on the way; other formats it leaves alone. The port's
 * codec reads the bytes itself, once, and when it is their turn.
 */
import type { Session } from "rhea";

/** Any format but the one that the library decodes. */
const NOT_DECODED = 1;

interface TransferFrame {
  readonly performative: { message_format: number };
}

interface Transfers {
  on_transfer(frame: TransferFrame): void;
}

/** Applies to every receiver of the session; call it before one is opened. */
export function receiveRaw(session: Session): void {
  const transfers = session as unknown as Transfers;
  const handle = transfers.on_transfer.bind(session);
  transfers.on_transfer = (frame) => {
    frame.performative.message_format = NOT_DECODED;
    handle(frame);
  };
}
