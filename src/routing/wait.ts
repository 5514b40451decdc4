/**
 * The waiting room of a route: keys whose messages wait for a time or for an operator. The messages
 * stand in a stream of the route's own; here is only which of them are not finished, by lane, and
 * when the first of each lane is due. What a lane holds leaves in the order in which it came.
 *
 * A message counts as moved once its record is durable, never before; so the stream tells at every
 * start what has been moved, whatever the route's record had come to.
 */
import { GapError, errorText } from "../errors.ts";
import {
  reasonLengthMax,
  reconnectDelayMaxMs,
  routeBatchBytes,
  sleepMsMax,
  waitKeysMax,
  waitLoadBytes,
  waitLoadedMax,
  waitMessagesMax,
} from "../limits.ts";
import type { Offset } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import { FinishedPlaces } from "./finished-places.ts";
import type { Hold } from "./lanes.ts";
import type { Finish, WaitMark } from "./progress.ts";
import type { ParkedKey } from "./status.ts";
import { Tasks } from "./tasks.ts";
import { readWaiting, type WaitParts } from "./wait-load.ts";
import { againRecord, noteRecord, readWaitRecord, WaitingMessage } from "./wait-record.ts";
import { WaitWriter } from "./wait-writer.ts";
import type { WaitEntry, WaitLane, Work } from "./work.ts";

/** The waiting room of one route. */
export class WaitRoom {
  readonly #parts: WaitParts;
  readonly #lanes = new Map<string, WaitLane>();
  readonly #due = new Set<WaitLane>();
  readonly #tasks: Tasks;
  readonly #writer: WaitWriter;
  #finished: FinishedPlaces;
  #count = 0;
  #loaded = 0;
  #isLoading = false;

  constructor(parts: WaitParts) {
    this.#parts = parts;
    this.#tasks = new Tasks(parts.onFailed);
    this.#writer = new WaitWriter(parts);
    const end = parts.partition.offsetEnd;
    this.#finished = new FinishedPlaces(end, { places: [], noted: end });
  }

  /**
   * Reads what waits from its stream, and counts as moved what its state record does not know yet.
   * Once, before anything else. @throws GatewayError the stream can't be read now.
   */
  async load(): Promise<void> {
    const read = await readWaiting(this.#parts);
    this.#finished = new FinishedPlaces(this.#parts.partition.offsetEnd, read);
    for (const { lane, entry, hold } of read.entries) {
      this.#lane(lane, hold).entries.push(entry);
      this.#count++;
    }
  }

  /** Begins to send what is due. */
  start(): void {
    for (const lane of this.#lanes.values()) this.#sleep(lane);
  }

  /** Whether messages of a lane have to wait behind others. */
  has(lane: string): boolean {
    return this.#lanes.has(lane);
  }

  /** Messages that stand in the stream. */
  get count(): number {
    return this.#count;
  }

  /** Whether the route may take more messages, any of which may have to wait. */
  get hasRoom(): boolean {
    const hasKeys = this.#lanes.size < waitKeysMax && this.#count < waitMessagesMax;
    return hasKeys && this.#writer.bytes < routeBatchBytes;
  }

  canHold(lane: string): boolean {
    return this.#lanes.has(lane) || this.#lanes.size < waitKeysMax;
  }

  /** What is told of it: messages and keys that wait for a time, and for an operator. */
  get tally(): { waiting: number; parked: number; waitingKeys: number; parkedKeys: number } {
    let parked = 0;
    let parkedKeys = 0;
    for (const { hold, entries } of this.#lanes.values()) {
      if (hold.dueMs !== null) continue;
      parkedKeys++;
      // Those on their way to the stream are the last ones.
      let stored = entries.length;
      while (stored > 0 && entries[stored - 1]?.at === null) stored--;
      parked += stored;
    }
    const waitingKeys = this.#lanes.size - parkedKeys;
    return { waiting: this.#count - parked, parked, waitingKeys, parkedKeys };
  }

  /** When the oldest of all that wait was appended; 0: there is none. */
  get oldestMs(): number {
    let oldest = 0;
    for (const { entries } of this.#lanes.values()) {
      const ms = entries[0]?.appendedAtMs ?? 0;
      if (ms > 0 && (oldest === 0 || ms < oldest)) oldest = ms;
    }
    return oldest;
  }

  /** Keys that wait for an operator. */
  parked(): readonly ParkedKey[] {
    const parked = [...this.#lanes.values()].filter(({ hold }) => hold.dueMs === null);
    return parked.map(({ name, entries, hold }) => ({
      lane: name,
      messages: entries.length,
      sinceMs: hold.trouble?.sinceMs ?? 0,
      reason: hold.reason,
    }));
  }

  /** What a waiting message waits for; behind another one of its lane: for that. */
  holdOf(offset: Offset): Hold | null {
    for (const { entries, hold } of this.#lanes.values()) {
      const index = entries.findIndex((entry) => entry.offset === offset);
      if (index === 0) return hold;
      if (index > 0) return { ...hold, trouble: null };
    }
    return null;
  }

  /** What the route's state record says of it. */
  mark(): WaitMark | null {
    return this.#finished.mark(this.next, this.#parts.partition.epoch);
  }

  /** Takes over messages of one lane, which begin to wait, or wait again; oldest first. */
  hold(works: readonly Work[], given: Hold): void {
    const [first] = works;
    if (first === undefined) return;
    const hold = { ...given, reason: given.reason.slice(0, reasonLengthMax) };
    if (first.entry === null) {
      const isFirst = !this.#lanes.has(first.lane);
      const lane = this.#lane(first.lane, hold);
      for (const work of works) this.#move(lane, work, isFirst && work === first ? hold : null);
      return;
    }
    const lane = this.#lane(first.lane, hold);
    this.#loaded -= lane.loaded;
    lane.loaded = 0;
    lane.hold = hold;
    this.#parts.progress.setTrouble(first.message.offset, null);
    this.#noteHold(lane, first.message.offset);
    this.#sleep(lane);
  }

  /** Takes a message behind those of its lane that wait. */
  follow(work: Work): void {
    const lane = this.#lanes.get(work.lane);
    if (lane !== undefined) this.#move(lane, work, null);
  }

  /**
   * Takes in a message that an operator sends again; it goes out behind those of its lane. Resolves
   * once it waits durably; false: it had been taken in before; null: the route stops.
   */
  async takeAgain(
    message: StoredMessage,
    how: { readonly lane: string; readonly revision: number },
    again: string,
  ): Promise<boolean | null> {
    const { offset, appendedAtMs } = message;
    const lane = this.#lane(how.lane, { dueMs: 0, trouble: null, reason: again });
    const entry: WaitEntry = { offset, appendedAtMs, at: null };
    let isNew: boolean | null = null;
    lane.entries.push(entry);
    const record = againRecord(message, { ...how, life: this.#parts.life }, again);
    this.#writer.again(record, again, (at, isDuplicate) => {
      isNew = !isDuplicate;
      if (isDuplicate) return this.#forget(lane, entry);
      entry.at = at;
      this.#finished.see(at);
      this.#count++;
      this.#parts.progress.takeAgain();
      if (lane.entries[0] === entry) this.#sleep(lane);
      this.#parts.onChange();
    });
    await this.#writer.written();
    return isNew;
  }

  #forget(lane: WaitLane, entry: WaitEntry): void {
    const index = lane.entries.indexOf(entry);
    if (index >= 0) lane.entries.splice(index, 1);
    if (lane.entries.length === 0) this.#lanes.delete(lane.name);
    else if (index === 0) this.#sleep(lane);
  }

  /** A waiting message is finished. */
  finish(work: Work, how: Finish): void {
    const { entry } = work;
    const lane = this.#lanes.get(work.lane);
    const index = entry === null ? -1 : (lane?.entries.indexOf(entry) ?? -1);
    if (lane === undefined || entry === null || entry.at === null || index < 0) return;
    lane.entries.splice(index, 1);
    lane.loaded--;
    this.#loaded--;
    this.#count--;
    this.#finished.add(entry.at);
    this.#parts.progress.finishWaiting(entry.offset, how);
    this.#noteFinished();
    if (lane.entries.length === 0) this.#lanes.delete(lane.name);
    else if (lane.loaded === 0) this.#release(lane, "behind another one");
    this.#loadDue();
  }

  /**
   * Lets parked messages of one lane, or of all, be tried again from their first attempt. Resolves
   * with the number of keys once that is durable, or when the route stops.
   */
  async release(which: string | null): Promise<number> {
    const lanes = [...this.#lanes.values()].filter(
      ({ name, hold }) => hold.dueMs === null && (which === null || name === which),
    );
    for (const lane of lanes) {
      const [head] = lane.entries;
      this.#release(lane, "released");
      if (head !== undefined) this.#noteHold(lane, head.offset);
    }
    await this.#writer.written();
    return lanes.length;
  }

  /** Resolves when everything that is on its way to the stream is there, or was given up. */
  written(): Promise<void> {
    return this.#writer.written();
  }

  /** Resolves when nothing is under way any more. Call it after `stop` was aborted. */
  async ended(): Promise<void> {
    await this.#tasks.ended();
    await this.#writer.ended();
  }

  #lane(name: string, hold: Hold): WaitLane {
    let lane = this.#lanes.get(name);
    if (lane === undefined) {
      lane = { name, entries: [], hold, loaded: 0, isDue: false, sleep: null };
      this.#lanes.set(name, lane);
    }
    return lane;
  }

  #move(lane: WaitLane, work: Work, hold: Hold | null): void {
    const { offset, appendedAtMs } = work.message;
    const entry: WaitEntry = { offset, appendedAtMs, at: null };
    lane.entries.push(entry);
    this.#writer.move(work, hold, (at) => {
      entry.at = at;
      this.#finished.see(at);
      this.#count++;
      this.#parts.progress.move(offset);
      if (lane.entries[0] === entry) this.#sleep(lane);
      this.#parts.onChange();
    });
  }

  #noteHold(lane: WaitLane, offset: Offset): void {
    const { life, clock } = this.#parts;
    const note = { life, offset, schedule: lane.hold };
    this.#writer.note(noteRecord(note, clock.nowMs()), (at) => this.#finished.see(at));
  }

  /** Names finished messages in the stream before they become too many for the state record. */
  #noteFinished(): void {
    const finished = this.#finished.toNote(this.next);
    if (finished === null) return;
    const { life, clock } = this.#parts;
    this.#writer.note(noteRecord({ life, finished }, clock.nowMs()), (at) => {
      this.#finished.wereNoted(finished, at);
      this.#loadDue();
    });
  }

  /** The first place in the stream that is still needed. */
  get next(): Offset {
    let next = this.#finished.end;
    for (const { entries } of this.#lanes.values()) next = Math.min(next, entries[0]?.at ?? next);
    return next;
  }

  #release(lane: WaitLane, reason: string): void {
    lane.hold = { dueMs: 0, trouble: null, reason };
    this.#sleep(lane);
  }

  /** Waits until the first of a lane is due; one sleep a lane. */
  #sleep(lane: WaitLane): void {
    lane.sleep?.abort();
    lane.sleep = null;
    lane.isDue = false;
    this.#due.delete(lane);
    const { dueMs } = lane.hold;
    if (dueMs === null) return;
    const { clock, stop } = this.#parts;
    const sleep = new AbortController();
    lane.sleep = sleep;
    const signal = AbortSignal.any([stop, sleep.signal]);
    this.#tasks.run(async () => {
      let leftMs = dueMs - clock.nowMs();
      for (; leftMs > 0 && !signal.aborted; leftMs -= sleepMsMax) {
        await clock.sleep(Math.min(leftMs, sleepMsMax), signal);
      }
      if (signal.aborted) return;
      lane.isDue = true;
      this.#due.add(lane);
      this.#loadDue();
    });
  }

  /** Loads what is due, one lane after another, within bounds. */
  #loadDue(): void {
    if (this.#isLoading || this.#due.size === 0 || this.#parts.stop.aborted) return;
    this.#isLoading = true;
    this.#tasks.run(async () => {
      try {
        while (!this.#parts.stop.aborted && this.#canLoad()) {
          const [lane] = this.#due;
          if (lane === undefined) break;
          this.#due.delete(lane);
          await this.#loadLane(lane);
        }
      } finally {
        this.#isLoading = false;
      }
    });
  }

  #canLoad(): boolean {
    return this.#loaded < waitLoadedMax && this.#finished.hasRoom;
  }

  /** Sends the first messages of a lane on their way; few when many lanes are due. */
  async #loadLane(lane: WaitLane): Promise<void> {
    const from = lane.entries[0]?.at ?? null;
    if (from === null || lane.loaded > 0 || !lane.isDue) return;
    const room = waitLoadedMax - this.#loaded;
    const messagesMax = Math.max(1, Math.floor(room / (this.#due.size + 1)));
    const { partition, stop, clock, offer } = this.#parts;
    try {
      const options = { messagesMax, bytesMax: waitLoadBytes, signal: stop };
      const batch = await partition.read(from, options);
      // Released, or swapped for another place, while it was read.
      if (batch === null || lane.entries[0]?.at !== from || !lane.isDue) return;
      const works: Work[] = [];
      for (const record of batch.messages) {
        const entry = lane.entries[works.length];
        if (entry?.at === record.offset) works.push(this.#workOf(record, entry));
      }
      if (works.length === 0) throw new GapError({ from, to: from + 1, reason: "corrupt" });
      lane.loaded = works.length;
      this.#loaded += works.length;
      offer(works);
    } catch (error) {
      if (error instanceof GapError) this.#dropGap(error);
      else this.#parts.onTrouble(`waiting messages can't be read: ${errorText(error)}`);
      lane.hold = { ...lane.hold, dueMs: clock.nowMs() + reconnectDelayMaxMs };
      this.#sleep(lane);
    }
  }

  #workOf(record: Parameters<typeof readWaitRecord>[0], entry: WaitEntry): Work {
    const { source, progress, workOf } = this.#parts;
    const meta = readWaitRecord(record);
    const { offset: at } = record;
    if (!("lane" in meta)) throw new GapError({ from: at, to: at + 1, reason: "corrupt" });
    const lane = this.#lanes.get(meta.lane);
    const trouble = lane?.entries[0] === entry ? lane.hold.trouble : null;
    if (trouble !== null) progress.setTrouble(meta.offset, trouble);
    return workOf(new WaitingMessage(record, meta, source.id), meta, entry);
  }

  /** What stood in a damaged place is gone; the ledger shows how much. */
  #dropGap(gap: GapError): void {
    this.#parts.onGap(gap);
    for (const lane of this.#lanes.values()) {
      const kept = lane.entries.filter(({ at }) => at === null || at < gap.from || at >= gap.to);
      this.#count -= lane.entries.length - kept.length;
      lane.entries.splice(0, lane.entries.length, ...kept);
      if (kept.length === 0) this.#lanes.delete(lane.name);
    }
  }
}
