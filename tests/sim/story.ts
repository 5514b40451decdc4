/**
 * One story: a gateway through several lives on one disk with one broker, all of it chosen by one
 * seed. A life ends at any event (a call of the disk, a send, an ack) by a kill or a power cut, or
 * in peace; at each start, and when everything has come to rest, the checks look at what is left.
 */
import { GatewayError } from "../../src/errors.ts";
import type { FileLog } from "../../src/log/files.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { NO_TROUBLE, SimBroker } from "./broker.ts";
import { checkEnd, checkSource, checkStart, type Evidence } from "./checks.ts";
import { type Call, type Fault, MemoryDisk } from "./disk.ts";
import { Ledger, must, type Publication } from "./ledger.ts";
import { Life, Trace } from "./life.ts";
import {
  IN,
  openLog,
  RULE,
  type Sabotage,
  type Setup,
  type SimProcess,
  startProcess,
  TARGET,
} from "./process.ts";
import { Random } from "./random.ts";

/** What a disk can say to each call. */
export const FAULTS: readonly { readonly call: Call; readonly code: Fault["code"] }[] = [
  ...(["EIO", "ENOSPC", "EDQUOT", "EINTR"] as const).map(
    (code) => ({ call: "write", code }) as const,
  ),
  ...(["EIO", "ENOSPC", "EDQUOT", "EINTR"] as const).map(
    (code) => ({ call: "sync", code }) as const,
  ),
  ...(["EIO", "ENOSPC", "EMFILE", "EINTR"] as const).map(
    (code) => ({ call: "open", code }) as const,
  ),
  ...(["EIO", "ENOSPC", "EDQUOT"] as const).map((code) => ({ call: "rename", code }) as const),
  { call: "truncate", code: "EIO" },
  { call: "truncate", code: "EINTR" },
  { call: "remove", code: "EIO" },
  { call: "read", code: "EIO" },
  { call: "read", code: "EINTR" },
];

/** A call of the disk that fails, counted from 1, in one of the first two lives. */
export type StoryFault = Fault & { readonly life: 0 | 1 };

/** How a story differs from what its seed alone would make of it. */
export interface StoryOptions {
  readonly sabotage?: Sabotage;
  /** No trouble but this: the call of the disk that fails. */
  readonly fault?: StoryFault;
  readonly onLine?: (line: string) => void;
}

/** What became of a story that ended well. */
export interface StoryResult {
  /** Equal for equal seeds. */
  readonly hash: string;
  readonly lives: number;
  readonly messages: number;
  /** Whether the asked for call was made, and so failed. */
  readonly wasReached: boolean;
}

const KEYS = ["a", "b", "c"];
const TURNS_MAX = 20_000;

/** Runs the story of a seed. @throws Error a promise was broken; the sentence says which. */
export function runStory(seed: number, options: StoryOptions = {}): Promise<StoryResult> {
  return new Story(seed, options).run();
}

class Story {
  readonly #random: Random;
  readonly #options: StoryOptions;
  readonly #trace = new Trace();
  readonly #ledger = new Ledger();
  readonly #setup: Setup;
  readonly #isCalm: boolean;
  #disk = new MemoryDisk();
  #wallMs = 1_700_000_000_000;
  #lives = 0;
  #crashes = 0;
  #count = 0;
  #isReached = false;

  constructor(seed: number, options: StoryOptions) {
    const random = new Random(seed);
    this.#random = random;
    this.#options = options;
    this.#trace.onLine = options.onLine ?? null;
    this.#isCalm = options.fault === undefined && random.chance(0.06);
    const setup = setupOf(random, options.sabotage ?? null);
    // Small segments make every kind of call.
    this.#setup = options.fault === undefined ? setup : { ...setup, segmentBytes: 700 };
    if (!this.#isCalm && options.fault === undefined) {
      const chance = (most: number): number => (random.chance(0.6) ? random.next() * most : 0);
      this.#setup.broker.trouble = {
        hangUp: chance(0.06),
        refuse: chance(0.2),
        busy: chance(0.15),
        unsure: chance(0.15),
      };
    }
    this.#disk.sectorBytes = random.pick([512, 4096] as const);
  }

  async run(): Promise<StoryResult> {
    await this.#disk.makeFolder("/data");
    const lives = this.#options.fault === undefined ? 1 + this.#random.below(4) : 3;
    for (let life = 0; life < lives; life++) await this.#live(life);
    await this.#rest();
    return {
      hash: this.#trace.hash,
      lives: this.#lives,
      messages: this.#ledger.sent.size,
      wasReached: this.#isReached,
    };
  }

  /** A life with all that its seed has in store for it. */
  async #live(number: number): Promise<void> {
    const { fault } = this.#options;
    const isCutShort = !this.#isCalm && fault === undefined && this.#random.chance(0.75);
    const life = this.#begin(isCutShort ? 1 + this.#random.below(160) : Number.POSITIVE_INFINITY);
    if (fault?.life === number) life.disk.failAfter(fault);
    if (fault === undefined && !this.#isCalm) this.#breakDisk(life);
    const process = await this.#start(life);
    if (process !== null) await this.#steps(life, process);
    if (fault?.life === number) this.#isReached = life.disk.mend() === 0;
    if (process !== null && !life.isOver && (this.#isCalm || life.random.chance(0.3))) {
      await life.reach(process.stop());
    }
    this.#end(life);
  }

  #begin(eventsMax: number): Life {
    this.#lives++;
    const random = new Random(this.#random.below(2 ** 32));
    const trace = this.#trace;
    return new Life({ disk: this.#disk, random, wallMs: this.#wallMs, trace, eventsMax });
  }

  #breakDisk(life: Life): void {
    const { random, disk } = life;
    if (random.chance(0.6)) return;
    for (let count = 1 + random.below(2); count > 0; count--) {
      disk.failAfter({ ...random.pick(FAULTS), after: 1 + random.below(40) });
    }
    if (!random.chance(0.2)) return;
    // A disk that is full for a while.
    const after = 1 + random.below(30);
    for (let call = 0; call < 6; call++) {
      disk.failAfter({ call: "write", code: "ENOSPC", after: after + call });
    }
  }

  async #start(life: Life): Promise<SimProcess | null> {
    try {
      const opened = await life.reach(openLog(life, this.#setup));
      if (opened === null) return null;
      await life.reach(life.unharmed(() => this.#check(opened)));
      const process = startProcess(life, this.#setup, opened);
      await life.reach(process.change(this.#rule(life.random)));
      if (life.isOver) return null;
      process.startSource();
      return process;
    } catch (error) {
      // A disk that fails may keep a process from starting; the next one tries again.
      if (!(error instanceof GatewayError)) throw error;
      life.end(`it could not start: ${error.message}`);
      return null;
    }
  }

  async #check(log: FileLog): Promise<void> {
    const evidence = this.#evidence(log);
    await checkStart(evidence);
    await checkSource(evidence);
  }

  #evidence(log: FileLog): Evidence {
    return { log, setup: this.#setup, ledger: this.#ledger };
  }

  async #steps(life: Life, process: SimProcess): Promise<void> {
    const { random } = life;
    const isScripted = this.#options.fault !== undefined;
    const steps = isScripted ? 10 : 3 + random.below(8);
    for (let step = 0; step < steps && !life.isOver; step++) {
      await this.#step(life, process, isScripted ? (step % 4) / 4 : random.next());
      for (let turn = random.below(20); turn > 0 && !life.isOver; turn--) await life.turn();
      this.#checkBalance(life, process);
    }
  }

  async #step(life: Life, process: SimProcess, kind: number): Promise<void> {
    const { random } = life;
    if (kind < 0.35) return this.#publish(life, process);
    if (kind < 0.7) return this.#produce(random);
    if (kind < 0.8) {
      // A change that can't be stored now is refused; what runs goes on.
      const changing = process.change(this.#rule(random)).catch(toldToOperator);
      await life.reach(changing);
      return;
    }
    if (kind < 0.9) {
      this.#release(process);
    } else if (kind < 0.95) {
      if (!this.#isCalm) this.#setup.broker.hangUp();
    } else {
      life.clock.wallOffsetMs += random.below(100_000) - 50_000;
    }
  }

  #release(process: SimProcess): void {
    for (let index = 0; index < this.#setup.partitions; index++) {
      const releasing = process.routes.find(RULE, TARGET, index)?.release(null);
      releasing?.catch(toldToOperator);
    }
  }

  #rule(random: Random) {
    return {
      order: this.#setup.order,
      retry: { attempts: 1 + random.below(4), delayMin: "1ms", delayMax: "20s" },
      onFailure: random.pick(["dead-letter", "park", "block"]),
    };
  }

  #messages(count: number, prefix: string, random: Random): Message[] {
    return Array.from({ length: count }, () => {
      const key = random.chance(0.15) ? null : `${prefix}${random.pick(KEYS)}`;
      const id = `${prefix}${this.#count++}`;
      return {
        id,
        key: key === null ? null : encodeText(key),
        properties: {},
        headers: [],
        body: encodeText(`${id}:${"x".repeat(random.below(random.chance(0.05) ? 3000 : 120))}`),
        timestampMs: this.#wallMs,
        origin: null,
      };
    });
  }

  #produce(random: Random): void {
    const { broker, hasDedupe } = this.#setup;
    const { produced } = this.#ledger;
    const messages = this.#messages(1 + random.below(5), "s", random);
    for (const message of messages) {
      this.#ledger.note(message, hasDedupe);
      if (message.key === null) continue;
      const key = Buffer.from(message.key).toString();
      produced.set(key, [...(produced.get(key) ?? []), message.id]);
    }
    broker.produce(messages);
  }

  /** Publishes something new, or what was not acked yet, and does not wait for it. */
  #publish(life: Life, process: SimProcess): void {
    const open = this.#ledger.publications.filter(
      ({ isAcked, isUnderWay }) => !isAcked && !isUnderWay,
    );
    const isRetry = open.length > 0 && life.random.chance(0.5);
    this.#attempt(life, process, isRetry ? life.random.pick(open) : this.#publication(life.random));
  }

  #publication(random: Random): Publication {
    const hasKeys = random.chance(0.6);
    const messages = this.#messages(1 + random.below(4), "p", random);
    for (const message of messages) this.#ledger.note(message, hasKeys);
    const dedupeKeys = messages.map(({ id }) => (hasKeys ? `publish/${id}` : null));
    const made = {
      messages,
      dedupeKeys,
      tries: 0,
      isUnderWay: false,
      isAcked: false,
      attempt: null,
    };
    this.#ledger.publications.push(made);
    return made;
  }

  #attempt(life: Life, process: SimProcess, publication: Publication): void {
    publication.tries++;
    publication.isUnderWay = true;
    // Owned by the publication, which is under way until it is told, or its life has ended.
    publication.attempt = this.#append(life, process, publication).catch((error: unknown) => {
      if (!(error instanceof GatewayError))
        life.violations.push(`an append threw ${String(error)}`);
      publication.isUnderWay = false;
    });
  }

  async #append(life: Life, process: SimProcess, publication: Publication): Promise<void> {
    const { messages, dedupeKeys } = publication;
    const stream = process.streams.stream(IN);
    const { durable, receipts } = stream.append(messages, { dedupeKeys });
    await durable;
    await life.event("published", messages.map(({ id }) => id).join(" "));
    publication.isAcked = true;
    for (const [index, { partition, offset }] of receipts.entries()) {
      this.#ledger.acked.set(`${partition}/${offset}`, messages[index]?.id ?? "");
      const isReadable = offset < (stream.partitions[partition]?.offsetEnd ?? 0);
      if (!isReadable)
        life.violations.push(`I1: ${partition}/${offset} was acked and not readable`);
    }
  }

  #checkBalance(life: Life, process: SimProcess): void {
    const [violation] = life.violations;
    must(violation === undefined, violation ?? "");
    if (life.isOver) return;
    for (const { rule, partition, balanced, counts } of process.routes.statuses()) {
      const told = JSON.stringify(counts);
      must(balanced, `the ledger of ${rule}/${partition} does not balance: ${told}`);
    }
  }

  #end(life: Life): void {
    life.end("its story ends");
    for (const publication of this.#ledger.publications) publication.isUnderWay = false;
    this.#setup.broker.forget(this.#isCalm);
    this.#disk = life.remains ?? this.#disk;
    this.#wallMs = life.clock.nowMs() + this.#random.below(30_000);
    if (!this.#isCalm) this.#crashes++;
  }

  /** A last life without trouble, until nothing is left to be done. */
  async #rest(): Promise<void> {
    this.#setup.broker.trouble = NO_TROUBLE;
    const life = this.#begin(Number.POSITIVE_INFINITY);
    const process = await this.#start(life);
    must(process !== null, "a process could not start on a disk that is well");
    for (let turn = 0; !this.#isAtRest(process); turn++) {
      must(turn < TURNS_MAX, `it does not come to rest: ${this.#unrest(process)}`);
      if (turn % 50 === 0) this.#goOnAll(life, process);
      await life.turn();
    }
    this.#checkBalance(life, process);
    for (const { partition, counts, rule, end } of process.routes.statuses()) {
      const told = `${rule}/${partition}: ${JSON.stringify(counts)} of ${end}`;
      must(counts.taken === end, `the ledger has not taken all: ${told}`);
      must(counts.delivered + counts.deadLettered === end, `the ledger lost count: ${told}`);
    }
    const how = { crashes: this.#crashes, isCalm: this.#isCalm };
    await life.reach(checkEnd(this.#evidence(process.log), how));
    await life.reach(process.stop());
    must(!life.isOver, "a process without trouble ended itself");
    this.#trace.note(`end ${this.#disk.paths().join(" ")}`);
  }

  #goOnAll(life: Life, process: SimProcess): void {
    for (const each of this.#ledger.publications) {
      if (!each.isAcked && !each.isUnderWay) this.#attempt(life, process, each);
    }
    this.#release(process);
  }

  #isAtRest(process: SimProcess): boolean {
    if (this.#setup.broker.left > 0) return false;
    if (this.#ledger.publications.some(({ isAcked }) => !isAcked)) return false;
    return process.routes.statuses().every(({ offset, end, counts }) => {
      return offset === end && counts.waiting === 0 && counts.parked === 0;
    });
  }

  #unrest(process: SimProcess): string {
    const open = this.#ledger.publications.filter(({ isAcked }) => !isAcked).length;
    const statuses = process.routes
      .statuses()
      .map(({ rule, state, offset, end, error, counts }) => {
        return { rule, state, offset, end, error, counts };
      });
    return JSON.stringify({ source: this.#setup.broker.left, open, statuses });
  }
}

/** An operator's wish that can't be met now is told; the story goes on. */
function toldToOperator(error: unknown): void {
  if (!(error instanceof GatewayError)) throw error;
}

function setupOf(random: Random, sabotage: Sabotage | null): Setup {
  return {
    broker: new SimBroker(),
    failure: random.pick(["prefix", "independent"] as const),
    order: random.pick(["partition", "key", "key", "none"] as const),
    partitions: random.pick([1, 1, 2]),
    hasDedupe: random.chance(0.5),
    hasCopy: random.chance(0.3),
    segmentBytes: random.pick([700, 2000, 100_000]),
    fillAheadBytes: random.pick([100, 700, 5000]),
    revisions: new Map(),
    sabotage,
  };
}
