/**
 * What a simulated story remembers of what was promised to whom: messages that were sent, those
 * that were acked and where, and how far each route's cursor had come. Nothing of it is the
 * gateway's own word alone.
 */
import type { Message } from "../../src/message.ts";
import { decodeText } from "../../src/message.ts";

/** A call of a client that publishes, tried until it is acked. */
export interface Publication {
  readonly messages: readonly Message[];
  readonly dedupeKeys: readonly (string | null)[];
  tries: number;
  isUnderWay: boolean;
  isAcked: boolean;
  /** The newest call. */
  attempt: Promise<void> | null;
}

/** The promises of one story. */
export class Ledger {
  /** Bodies by id: all that anybody ever sent. */
  readonly sent = new Map<string, string>();
  /** Ids that a dedupe key keeps single. */
  readonly single = new Set<string>();
  /** Ids by `PARTITION/OFFSET`: what clients were told. */
  readonly acked = new Map<string, string>();
  readonly publications: Publication[] = [];
  /** By route: the newest cursor that was found on disk. */
  readonly cursors = new Map<string, number>();
  /** Ids of each key of the source, in the order in which they were produced. */
  readonly produced = new Map<string, string[]>();

  note(message: Message, isSingle: boolean): void {
    this.sent.set(message.id, decodeText(message.body ?? new Uint8Array()));
    if (isSingle) this.single.add(message.id);
  }
}

/** Fails a story. */
export function must(condition: boolean, sentence: string): asserts condition {
  if (!condition) throw new Error(sentence);
}
