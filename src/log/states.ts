/**
 * States: small records by name (routes' progress, durable client names), in the one internal
 * partition `$state`. Saves of one tick share an append and a sync; the last record of a name
 * counts. Losing the newest tick only causes duplicates, never a loss.
 *
 * When the partition has grown, its segment is sealed, everything that counts is appended anew,
 * and what lies before that is deleted once it is synced.
 */
import type { Clock } from "../clock.ts";
import { CorruptionError, GapError, LimitError, StorageError } from "../errors.ts";
import { stateBytesMax, stateTickMs } from "../limits.ts";
import { decodeText, encodeText, type Message } from "../message.ts";
import type { Batch, Offset, States } from "./log.ts";
import type { FilePartition } from "./partition.ts";

export const STATE_STREAM = "$state";
const SNAPSHOT_CHUNK = 1000;

interface Tick {
  readonly entries: Map<string, Uint8Array | null>;
  readonly saved: Promise<void>;
}

/** How states are opened. */
export interface StatesOptions {
  /** A snapshot is taken each so many bytes. */
  readonly logBytes: number;
  /** Whether the operator wants to go on without the records of these offsets. */
  readonly isAccepted: (from: Offset, to: Offset) => boolean;
}

/**
 * Reads all states of the partition. @throws CorruptionError a record is damaged: without it a
 * route would begin anew and skip messages, which is for an operator to decide.
 */
export async function openStates(
  partition: FilePartition,
  clock: Clock,
  { logBytes, isAccepted }: StatesOptions,
): Promise<StateStore> {
  const values = new Map<string, Uint8Array>();
  let offset = partition.offsetStart;
  while (offset < partition.offsetEnd) {
    const batch = await readStates(partition, offset, isAccepted);
    if (batch === null) break;
    for (const { key, body } of batch.messages) {
      const name = decodeText(key ?? new Uint8Array());
      if (body === null) values.delete(name);
      else values.set(name, Uint8Array.from(body));
    }
    offset = batch.next;
  }
  return new StateStore(partition, clock, { values, logBytes });
}

async function readStates(
  partition: FilePartition,
  offset: Offset,
  isAccepted: StatesOptions["isAccepted"],
): Promise<Batch | null> {
  try {
    const { signal } = new AbortController();
    return await partition.read(offset, { messagesMax: SNAPSHOT_CHUNK, signal });
  } catch (error) {
    if (!(error instanceof GapError)) throw error;
    const { from, to } = error;
    if (isAccepted(from, to)) return { messages: [], next: to };
    const known = partition.corruptions.find((each) => each.from <= from && from < each.to);
    const place = { path: known?.path ?? STATE_STREAM, byte: known?.byte ?? 0 };
    const message = "saved progress is damaged; serve --accept-corruption goes on without it";
    throw new CorruptionError(message, place);
  }
}

/** States over a partition. */
export class StateStore implements States, AsyncDisposable {
  readonly #partition: FilePartition;
  readonly #clock: Clock;
  readonly #values: Map<string, Uint8Array>;
  readonly #logBytes: number;
  readonly #closing = new AbortController();
  #tick: Tick | null = null;
  #writing: Promise<void> = Promise.resolve();
  #bytesSinceSnapshot = 0;

  constructor(
    partition: FilePartition,
    clock: Clock,
    held: { readonly values: Map<string, Uint8Array>; readonly logBytes: number },
  ) {
    this.#partition = partition;
    this.#clock = clock;
    this.#values = held.values;
    this.#logBytes = held.logBytes;
    this.#bytesSinceSnapshot = partition.byteLength;
  }

  load(key: string): Promise<Uint8Array | null> {
    return Promise.resolve(this.#values.get(key) ?? null);
  }

  /** The names that begin with a prefix. */
  keys(prefix: string): readonly string[] {
    return [...this.#values.keys()].filter((key) => key.startsWith(prefix));
  }

  save(entries: Iterable<readonly [string, Uint8Array | null]>): Promise<void> {
    const taken = [...entries];
    for (const [key, value] of taken) {
      if (value !== null && value.length > stateBytesMax) {
        throw new LimitError("too-large", `the state ${key} is over ${stateBytesMax} bytes`);
      }
    }
    this.#tick ??= this.#beginTick();
    for (const [key, value] of taken) {
      this.#tick.entries.set(key, value);
      if (value === null) this.#values.delete(key);
      else this.#values.set(key, value);
    }
    return this.#tick.saved;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#tick?.saved;
    await this.#writing;
  }

  #beginTick(): Tick {
    const entries = new Map<string, Uint8Array | null>();
    const saved = this.#clock.sleep(stateTickMs, this.#closing.signal).then(() => {
      this.#tick = null;
      const written = this.#writing.then(() => this.#write(entries));
      this.#writing = written.catch(toldToSavers);
      return written;
    });
    saved.catch(toldToSavers);
    return { entries, saved };
  }

  async #write(entries: ReadonlyMap<string, Uint8Array | null>): Promise<void> {
    const messages = [...entries].map(([key, value]) => this.#message(key, value));
    await this.#partition.append(messages).durable;
    for (const { body } of messages) this.#bytesSinceSnapshot += 160 + (body?.length ?? 0);
    if (this.#bytesSinceSnapshot > this.#logBytes) await this.#trySnapshot();
  }

  /** What was saved is saved, whatever becomes of the snapshot. */
  async #trySnapshot(): Promise<void> {
    try {
      await this.#snapshot();
    } catch (error) {
      if (!(error instanceof StorageError) || error.fatal) throw error;
      // Tried again when as much has gathered: each attempt costs space that may be short.
      this.#bytesSinceSnapshot = 0;
    }
  }

  async #snapshot(): Promise<void> {
    await this.#partition.roll();
    const old = this.#partition.segments.length - 1;
    const all = [...this.#values];
    let bytes = 0;
    for (let at = 0; at < all.length; at += SNAPSHOT_CHUNK) {
      const chunk = all.slice(at, at + SNAPSHOT_CHUNK);
      for (const [, value] of chunk) bytes += 160 + value.length;
      await this.#partition.append(chunk.map(([key, value]) => this.#message(key, value))).durable;
    }
    for (let count = 0; count < old; count++) await this.#partition.dropOldest();
    // A set that is itself large is not written anew for each few saves.
    this.#bytesSinceSnapshot = -bytes;
  }

  #message(key: string, value: Uint8Array | null): Message {
    return {
      id: "state",
      key: encodeText(key),
      properties: {},
      headers: [],
      body: value,
      timestampMs: this.#clock.nowMs(),
      origin: null,
    };
  }
}

/** A failed save is told to those who saved; not all of them wait. */
function toldToSavers(): void {}
