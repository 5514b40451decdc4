/**
 * A partition and the states through several lives of a process, on a disk that fails and loses
 * power: what is done in each life, what was acked, and what must be true at the next start.
 */
import { expect } from "bun:test";
import { decodeText, encodeText } from "../../src/message.ts";
import type { FileLog } from "../../src/log/files.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import type { StoredRecord } from "../../src/log/record.ts";
import { SimulatedClock } from "../sim/clock.ts";
import type { MemoryDisk } from "../sim/disk.ts";
import type { Random } from "../sim/random.ts";
import { message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const KEYS = 12;
const NAMES = 5;
/** Often, and not always, as in a long life. */
const fillAhead = { groups: 1, groupBytesMax: 400, bytes: 600 };

/** What may be found of a state: the last value that was acked, and all that was tried since. */
type Tried = readonly { readonly value: string | null }[];

/** All that was promised, and the disk that has to keep it. */
export class Lives {
  disk: MemoryDisk;
  readonly #random: Random;
  readonly #clock = new SimulatedClock();
  #acked = new Map<string, number>();
  #sent = new Set<string>();
  #states = new Map<string, Tried>();
  /** Segments below it were asked to go. */
  #droppedBelow = 0;
  #epoch: string | null = null;
  #count = 0;

  constructor(disk: MemoryDisk, random: Random) {
    this.disk = disk;
    this.#random = random;
  }

  /** The same promises, to be kept by another disk. */
  fork(disk: MemoryDisk): Lives {
    const copy = new Lives(disk, this.#random);
    copy.#acked = new Map(this.#acked);
    copy.#sent = new Set(this.#sent);
    copy.#states = new Map(this.#states);
    copy.#droppedBelow = this.#droppedBelow;
    copy.#epoch = this.#epoch;
    copy.#count = this.#count;
    copy.#clock.wallMs = this.#clock.wallMs;
    return copy;
  }

  /** Opens the log as a new process would. Rejects when the disk does not let it. */
  async open(): Promise<FileLog> {
    const options = { clock: this.#clock, segmentBytes: 700, stateLogBytes: 1500, fillAhead };
    return (await openLog(this.disk, "/data/streams", options)).log;
  }

  /** Steps of one life, one after another or at once; ends when the log takes nothing more. */
  async live(log: FileLog, steps: number): Promise<void> {
    const life = { isOver: false };
    const waits: Promise<unknown>[] = [];
    for (let step = 0; step < steps; step++) {
      const done = this.#step(log, life).catch(() => undefined);
      waits.push(done);
      if (this.#random.chance(0.7)) await done;
    }
    if (this.#random.chance(0.5)) await Promise.all(waits);
    if (this.#random.chance(0.2)) await log[Symbol.asyncDispose]();
    life.isOver = true;
  }

  /** Steps that do not depend on the seed, each after the one before. */
  async scripted(log: FileLog): Promise<void> {
    const life = { isOver: false };
    const partition = log.partition(PLACE);
    const attempt = (work: Promise<unknown>): Promise<unknown> => work.catch(() => undefined);
    for (const name of ["p", "q"]) {
      await attempt(this.#append(partition, life, [`${name}1`, null, `${name}2`]));
      await attempt(this.#append(partition, life, [`${name}3`]));
      await attempt(this.#save(log, life, name));
      await attempt(partition.roll());
      await attempt(this.#append(partition, life, [`${name}1`, `${name}4`]));
      for (let save = 0; save < 4; save++) await attempt(this.#save(log, life, "r"));
      await attempt(this.#drop(partition));
    }
    life.isOver = true;
  }

  /** What must hold at every start. */
  async check(log: FileLog): Promise<void> {
    const partition = log.partition(PLACE);
    expect(log.corruptions()).toEqual([]);
    if (this.#acked.size > 0) expect(partition.epoch).toBe(this.#epoch ?? "");
    const held = (await readAll(partition)) as StoredRecord[];
    const byOffset = new Map(held.map((each) => [each.offset, each.id] as const));
    expect(held.length).toBe(partition.offsetEnd - partition.offsetStart);
    expect(new Set(byOffset.values()).size).toBe(held.length);
    expect(partition.offsetStart).toBeLessThanOrEqual(this.#droppedBelow);
    for (const { id } of held) expect(this.#sent.has(id)).toBe(true);
    for (const [id, offset] of this.#acked) {
      if (offset >= partition.offsetStart) expect(byOffset.get(offset)).toBe(id);
    }
    const times = held.map(({ appendedAtMs }) => appendedAtMs);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    // What was found is now on disk, and stays.
    for (const [offset, id] of byOffset) this.#acked.set(id, offset);
    if (held.length > 0) this.#epoch = partition.epoch;
    for (const [name, tried] of this.#states) {
      const found = await log.states.load(name);
      const value = found === null ? null : decodeText(found);
      expect(tried.map((each) => each.value)).toContain(value);
      this.#states.set(name, [{ value }]);
    }
    await this.#checkKeys(partition, held);
  }

  /** Keys of what is held are known, and no others. */
  async #checkKeys(partition: FilePartition, held: readonly StoredRecord[]): Promise<void> {
    const offsets = new Map<string, number[]>();
    for (const { dedupeKey, offset } of held) {
      if (dedupeKey !== null) offsets.set(dedupeKey, [...(offsets.get(dedupeKey) ?? []), offset]);
    }
    for (const [key, places] of offsets) {
      const appended = partition.append([message("again")], { dedupeKeys: [key] });
      await appended.durable;
      const receipt = appended.receipt(0);
      expect(receipt.duplicate, key).toBe(true);
      expect(places).toContain(receipt.offset);
    }
    const free = Array.from({ length: KEYS }, (_, index) => `k${index}`);
    const key = free.find((each) => !offsets.has(each));
    if (key === undefined) return;
    const end = partition.offsetEnd;
    await this.#append(partition, { isOver: false }, [key]);
    expect(partition.offsetEnd, `${key} was not held`).toBe(end + 1);
  }

  async #step(log: FileLog, life: { readonly isOver: boolean }): Promise<void> {
    const partition = log.partition(PLACE);
    const random = this.#random;
    const kind = random.next();
    if (random.chance(0.1)) this.#clock.wallMs += random.below(20_000) - 10_000;
    if (kind < 0.6) {
      const count = 1 + random.below(3);
      const key = (): string | null => (random.chance(0.7) ? `k${random.below(KEYS)}` : null);
      await this.#append(partition, life, Array.from({ length: count }, key));
    } else if (kind < 0.8) {
      await this.#save(log, life, `n${random.below(NAMES)}`);
    } else if (kind < 0.9) {
      await partition.roll();
    } else if (partition.segments.length > 2) {
      await this.#drop(partition);
    }
  }

  async #append(
    partition: FilePartition,
    life: { readonly isOver: boolean },
    dedupeKeys: readonly (string | null)[],
  ): Promise<void> {
    const names = dedupeKeys.map(() => `m${this.#count++}`);
    for (const name of names) this.#sent.add(name);
    const body = new Uint8Array(this.#random.below(200));
    const messages = names.map((name) => message(name, { body }));
    const appended = partition.append(messages, { dedupeKeys });
    await appended.durable;
    if (life.isOver) return;
    for (const [index, name] of names.entries()) {
      const { offset, duplicate } = appended.receipt(index);
      if (!duplicate) this.#acked.set(name, offset);
    }
    this.#epoch = partition.epoch;
  }

  async #save(log: FileLog, life: { readonly isOver: boolean }, name: string): Promise<void> {
    const value = this.#random.chance(0.2) ? null : `${this.#count++}`.padStart(100, " ");
    const own = { value };
    this.#states.set(name, [...(this.#states.get(name) ?? [{ value: null }]), own]);
    await log.states.save([[name, value === null ? null : encodeText(value)]]);
    if (life.isOver) return;
    const tried = this.#states.get(name) ?? [];
    this.#states.set(name, tried.slice(Math.max(0, tried.indexOf(own))));
  }

  async #drop(partition: FilePartition): Promise<void> {
    if (partition.segments.length < 2) return;
    const next = partition.segments[1]?.baseOffset ?? 0;
    this.#droppedBelow = Math.max(this.#droppedBelow, next);
    await partition.dropOldest();
  }
}
