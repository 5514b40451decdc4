/**
 * Reads a whole stream from a cursor on: all partitions, in order within each, and after each
 * message the cursor that stands behind it. What clients pull (HTTP, events, socket) reads here.
 */
import { GapError, type GapReason } from "../errors.ts";
import type { StoredMessage } from "../message.ts";
import { type Cursor, type CursorPlace, encodeCursor, shortEpoch } from "./cursor.ts";
import type { Batch, Offset, Partition, Waiter } from "./log.ts";
import type { Stream } from "./stream.ts";

/** Messages that are gone, told instead of silence. */
export interface Gap {
  readonly partition: number;
  readonly from: Offset;
  readonly to: Offset;
  readonly reason: GapReason;
}

/** Messages of one partition, and what was missing before them. */
export interface StreamBatch {
  readonly messages: readonly StoredMessage[];
  /** Where `messages` belongs. */
  readonly partition: number;
  readonly gaps: readonly Gap[];
}

/** A position in a stream that moves as it is read. One caller at a time. */
export class StreamReader implements Waiter {
  readonly #stream: Stream;
  readonly #places: CursorPlace[];
  readonly #only: number | null;
  readonly #key: Uint8Array | null;
  readonly #pendingGaps: Gap[] = [];
  #turn = 0;
  /** Told when there may be something; it waits at the end, and nothing has come for it to look at. */
  #waiter: Waiter | null = null;

  /**
   * `only` reads one partition; with `key` messages of other keys may be left out. A cursor of
   * another epoch begins at the oldest, with a gap.
   */
  constructor(
    stream: Stream,
    cursor: Cursor,
    { only = null, key = null }: { only?: number | null; key?: Uint8Array | null } = {},
  ) {
    this.#stream = stream;
    this.#only = only;
    this.#key = key;
    this.#places = stream.partitions.map((partition, index) =>
      this.#placeOf(partition, index, cursor[index]),
    );
  }

  /** Where it stands: behind everything returned so far. */
  get cursor(): Cursor {
    return this.#places.slice();
  }

  /** The cursor behind one message of the batch that was returned last. */
  cursorAfter(message: StoredMessage): string {
    const places = this.#places.slice();
    const place = places[message.partition];
    if (place !== undefined) {
      places[message.partition] = { epoch: place.epoch, offset: message.offset + 1 };
    }
    return encodeCursor(places);
  }

  /** Goes back before a message of the batch that was returned last: it comes again. */
  backTo({ partition, offset }: StoredMessage): void {
    this.#move(partition, offset);
  }

  /** While it waits: passes messages of other keys than its own; whether there were any. */
  passOthers(): boolean {
    if (this.#waiter === null || this.atEnd) return false;
    for (const index of this.#indexes()) this.#move(index, this.#partition(index).offsetEnd);
    return true;
  }

  /** Whether something is missing that `next` has not told of. */
  get hasGaps(): boolean {
    return this.#pendingGaps.length > 0;
  }

  /** Whether nothing is there to be read now. */
  get atEnd(): boolean {
    const { length } = this.#places;
    if (this.#only !== null) return this.#available(this.#only) <= 0;
    for (let index = 0; index < length; index++) if (this.#available(index) > 0) return false;
    return true;
  }

  /**
   * Wakes `waiter` once when some partition may have something, at once when it has; one at a time.
   * Nothing but this object waits meanwhile.
   */
  whenReadable(waiter: Waiter): void {
    this.#waiter = waiter;
    for (const index of this.#indexes()) {
      const place = { offset: this.#offset(index), key: this.#key };
      this.#partition(index).waits.whenReadable(place, this);
      if (this.#waiter === null) return;
    }
  }

  /** Ends the wait. */
  endWait(): void {
    if (this.#waiter === null) return;
    this.#waiter = null;
    for (const index of this.#indexes()) this.#partition(index).waits.endWait(this.#key, this);
  }

  /** A partition may have something. */
  readable(isClosed: boolean): void {
    const waiter = this.#waiter;
    // Who woke it has forgotten it: there are others only where there are several.
    if (this.#places.length > 1) this.endWait();
    this.#waiter = null;
    waiter?.readable(isClosed);
  }

  /**
   * The next messages, of one partition; waits when there are none, unless `wait` is false. Null
   * when aborted, at the end without waiting, or when the log has closed. Partitions take turns.
   */
  async next(options: {
    messagesMax: number;
    bytesMax?: number;
    wait: boolean;
    signal: AbortSignal;
  }): Promise<StreamBatch | null> {
    for (;;) {
      if (options.signal.aborted) return null;
      const index = this.#nextIndex();
      if (index !== null) return await this.#take(index, options);
      if (this.#pendingGaps.length > 0) {
        return { messages: [], partition: 0, gaps: this.#pendingGaps.splice(0) };
      }
      if (!options.wait) return null;
      if (await this.#waitForAny(options.signal)) return null;
    }
  }

  async #take(
    index: number,
    options: { messagesMax: number; bytesMax?: number; signal: AbortSignal },
  ): Promise<StreamBatch | null> {
    const partition = this.#partition(index);
    const gaps = this.#pendingGaps.splice(0);
    const limits = { ...options, key: this.#key };
    for (;;) {
      try {
        const batch: Batch | null = await partition.read(this.#offset(index), limits);
        if (batch === null) return null;
        this.#move(index, batch.next);
        return { messages: batch.messages, partition: index, gaps };
      } catch (error) {
        if (!(error instanceof GapError)) throw error;
        gaps.push({ partition: index, from: error.from, to: error.to, reason: error.reason });
        this.#move(index, error.to);
        if (this.#available(index) <= 0) return { messages: [], partition: index, gaps };
      }
    }
  }

  #placeOf(partition: Partition, index: number, place: CursorPlace | undefined): CursorPlace {
    const epoch = shortEpoch(partition.epoch);
    if (place === undefined) return { epoch, offset: partition.offsetStart };
    const past = place.offset > partition.offsetEnd;
    if (place.epoch === epoch && !past) return place;
    if (place.offset === 0) return { epoch, offset: 0 };
    const to = partition.offsetStart;
    if (this.#only === null || this.#only === index) {
      this.#pendingGaps.push({ partition: index, from: place.offset, to, reason: "epoch" });
    }
    return { epoch, offset: to };
  }

  #indexes(): number[] {
    return this.#only === null ? [...this.#stream.partitions.keys()] : [this.#only];
  }

  #partition(index: number): Partition {
    const partition = this.#stream.partitions[index];
    if (partition === undefined) throw new RangeError(`no partition ${index}`);
    return partition;
  }

  #offset(index: number): Offset {
    return this.#places[index]?.offset ?? 0;
  }

  #move(index: number, offset: Offset): void {
    const place = this.#places[index];
    if (place !== undefined) this.#places[index] = { epoch: place.epoch, offset };
  }

  #available(index: number): number {
    return this.#partition(index).offsetEnd - this.#offset(index);
  }

  #nextIndex(): number | null {
    if (this.#only !== null) return this.#available(this.#only) > 0 ? this.#only : null;
    const { length } = this.#places;
    for (let step = 0; step < length; step++) {
      const index = (this.#turn + step) % length;
      if (this.#available(index) <= 0) continue;
      this.#turn = (index + 1) % length;
      return index;
    }
    return null;
  }

  /** Waits until some partition may have something, or until aborted; true: the log has closed. */
  async #waitForAny(signal: AbortSignal): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const onAbort = (): void => resolve(false);
    signal.addEventListener("abort", onAbort, { once: true });
    this.whenReadable({ readable: resolve });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.endWait();
    }
  }
}
