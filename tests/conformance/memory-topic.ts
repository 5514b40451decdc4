/** Topics of the broker in memory: partitions, and the groups that share them. */
import type { SourceOptions } from "../../src/bridge.ts";
import type { Message } from "../../src/message.ts";

/** What a member takes: messages of one partition that it must settle. */
export interface Taken {
  readonly partition: number;
  readonly messages: readonly (Message & { readonly offset: number })[];
  readonly bytes: number;
  ack(): void;
  nack(): void;
}

/** How much one delivery may have; with `any` its first message may be larger. */
export interface Bound {
  readonly count: number;
  readonly bytes: number;
  readonly any: boolean;
}

export class Topic {
  readonly name: string;
  /** Everything in the order in which it came. */
  readonly log: Message[] = [];
  readonly #partitions: Message[][];
  readonly #groups = new Map<string, Group>();
  #turn = 0;

  constructor(name: string, partitions: number) {
    this.name = name;
    this.#partitions = Array.from({ length: partitions }, () => []);
  }

  get partitions(): readonly (readonly Message[])[] {
    return this.#partitions;
  }

  /** Takes a message; equal keys share a partition, without a key they take turns. */
  append(message: Message): string {
    const count = this.#partitions.length;
    const { key } = message;
    const index = (key === null ? this.#turn++ : Bun.hash.crc32(key)) % count;
    const partition = this.#partitions[index];
    this.log.push(message);
    partition?.push(message);
    return `partition ${index} offset ${(partition?.length ?? 0) - 1}`;
  }

  group(name: string, start: SourceOptions["start"]): Group {
    const group = this.#groups.get(name) ?? new Group(this, start);
    this.#groups.set(name, group);
    return group;
  }
}

/** One group's progress in one partition. */
class Position {
  /** Everything below it is acked. */
  committed: number;
  /** The next one to hand out for the first time. */
  next: number;
  readonly #acked = new Set<number>();
  /** Given back: handed out again before anything else. */
  again: number[] = [];
  owner: object | null = null;
  /** Changes with the owner: what an earlier owner settles counts no more. */
  term = 0;

  constructor(start: number) {
    this.committed = start;
    this.next = start;
  }

  ack(offset: number): void {
    this.#acked.add(offset);
    while (this.#acked.delete(this.committed)) this.committed += 1;
  }

  isAcked(offset: number): boolean {
    return offset < this.committed || this.#acked.has(offset);
  }

  assign(owner: object | null): void {
    if (owner === this.owner) return;
    this.owner = owner;
    this.term += 1;
    this.next = this.committed;
    this.again = [];
  }
}

export class Group {
  readonly #topic: Topic;
  readonly #positions: Position[];
  #members: object[] = [];

  constructor(topic: Topic, start: SourceOptions["start"]) {
    this.#topic = topic;
    this.#positions = topic.partitions.map((log) => new Position(startOf(log, start)));
  }

  get topic(): string {
    return this.#topic.name;
  }

  join(member: object): void {
    this.#members.push(member);
    this.#assign();
  }

  leave(member: object): void {
    this.#members = this.#members.filter((other) => other !== member);
    this.#assign();
  }

  /** The next messages of one of the member's partitions, within bounds. */
  take(member: object, bound: Bound): Taken | null {
    for (const [index, position] of this.#positions.entries()) {
      if (position.owner !== member) continue;
      const offsets = this.#offsets(index, position, bound);
      if (offsets.length > 0) return this.#taken(index, position, offsets);
    }
    return null;
  }

  #offsets(index: number, position: Position, bound: Bound): number[] {
    const log = this.#topic.partitions[index] ?? [];
    const offsets: number[] = [];
    let bytes = 0;
    while (offsets.length < bound.count) {
      const offset = position.again[0] ?? position.next;
      const message = log[offset];
      if (message === undefined) break;
      const isKnown = position.again.length === 0 && position.isAcked(offset);
      bytes += isKnown ? 0 : (message.body?.length ?? 0);
      if (bytes > bound.bytes && !(bound.any && offsets.length === 0)) break;
      if (position.again.length > 0) position.again.shift();
      else position.next += 1;
      if (!isKnown) offsets.push(offset);
    }
    return offsets;
  }

  #taken(partition: number, position: Position, offsets: readonly number[]): Taken {
    const { term } = position;
    const log = this.#topic.partitions[partition] ?? [];
    const messages = offsets.flatMap((offset) => {
      const message = log[offset];
      return message === undefined ? [] : [{ ...message, offset }];
    });
    const settle = (how: (offset: number) => void) => (): void => {
      if (position.term === term) for (const offset of offsets) how(offset);
    };
    return {
      partition,
      messages,
      bytes: messages.reduce((sum, message) => sum + (message.body?.length ?? 0), 0),
      ack: settle((offset) => position.ack(offset)),
      nack: settle((offset) => {
        position.again = [...position.again, offset].sort((a, b) => a - b);
      }),
    };
  }

  #assign(): void {
    for (const [index, position] of this.#positions.entries()) {
      position.assign(this.#members[index % Math.max(1, this.#members.length)] ?? null);
    }
  }
}

function startOf(log: readonly Message[], start: SourceOptions["start"]): number {
  if (start === "earliest") return 0;
  if (start === "latest") return log.length;
  const found = log.findIndex((message) => message.timestampMs >= start.timestampMs);
  return found < 0 ? log.length : found;
}
