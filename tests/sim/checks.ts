/**
 * What must be true of a simulated gateway: at each start of a life, and at the end of its story.
 * I1 what was acked is in the log; I2 nothing is there that nobody sent; I3 what is in the log is
 * delivered, among the dead letters or waiting; I4 equal keys keep their order; I5 copies only
 * where somebody could not know; I6 cursors never go back and pass nothing that is not finished.
 */
import type { FileLog } from "../../src/log/files.ts";
import { decodeText, type StoredMessage } from "../../src/message.ts";
import { DEAD_LETTER_HEADERS, deadLetterStream } from "../../src/routing/deadletter.ts";
import { Progress } from "../../src/routing/progress.ts";
import { routeKey, waitStream } from "../../src/routing/route-names.ts";
import { readWaitRecord } from "../../src/routing/wait-record.ts";
import type { SimBroker } from "./broker.ts";
import { type Ledger, must } from "./ledger.ts";
import { COPY, IN, RULE, type Setup, TARGET } from "./process.ts";

/** What the checks look at. */
export interface Evidence {
  readonly log: FileLog;
  readonly setup: Setup;
  readonly ledger: Ledger;
}

interface Held {
  readonly place: string;
  readonly record: StoredMessage;
}

/** What must hold at every start, before anything runs. */
export async function checkStart(evidence: Evidence): Promise<void> {
  const { log, setup, ledger } = evidence;
  const damages = log.corruptions();
  must(damages.length === 0, `a power cut was taken for damage: ${JSON.stringify(damages)}`);
  const held = await heldIn(log, IN, setup.partitions);
  checkLog(held, ledger);
  const buried = await buriedPlaces(log);
  const arrived = new Set(setup.broker.arrivals.map(({ place }) => place));
  for (let index = 0; index < setup.partitions; index++) {
    const partition = log.partition({ stream: IN, index });
    const key = routeKey(RULE, TARGET, partition);
    const saved = await log.states.load(key);
    if (saved === null) {
      must(!ledger.cursors.has(key), `I6: the cursor of ${key} is gone`);
      continue;
    }
    const progress = Progress.decode(saved, partition);
    // A partition gets its lasting epoch with its first message.
    if (progress === null && partition.offsetEnd === 0) continue;
    must(progress !== null, `I6: ${key} is of another epoch`);
    must(progress.lostCount === 0, `I6: ${key} is past the end of the log`);
    const before = ledger.cursors.get(key) ?? 0;
    must(progress.next >= before, `I6: ${key} went back from ${before} to ${progress.next}`);
    ledger.cursors.set(key, progress.next);
    const waiting = await waitingPlaces(log, key, index);
    for (const { place, record } of held) {
      if (record.partition !== index || !progress.window.isDone(record.offset)) continue;
      const isKept = arrived.has(place) || buried.has(place) || waiting.has(place);
      must(isKept, `I6: ${key} has passed ${place}, which is nowhere`);
    }
  }
}

/** I1, I2, and what dedupe keys promise. */
function checkLog(held: readonly Held[], ledger: Ledger): void {
  const byPlace = new Map(held.map(({ place, record }) => [place, record] as const));
  const counts = new Map<string, number>();
  for (const { place, record } of held) {
    const { id } = record;
    const body = ledger.sent.get(id);
    must(body !== undefined, `I2: ${place} holds ${id}, which nobody sent`);
    must(body === textOf(record), `I2: the body of ${id} is another one`);
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  for (const [place, id] of ledger.acked) {
    must(byPlace.get(place)?.id === id, `I1: ${id} was acked at ${place} and is not there`);
  }
  for (const id of ledger.single) {
    must((counts.get(id) ?? 0) <= 1, `${id} has a dedupe key and is there ${counts.get(id)} times`);
  }
}

/** I1 of the source: what it was told is taken is in the log. */
export async function checkSource({ log, setup }: Evidence): Promise<void> {
  const held = await heldIn(log, IN, setup.partitions);
  const ids = new Set(held.map(({ record }) => record.id));
  for (const id of setup.broker.ackedIds) {
    must(ids.has(id), `I1: the source was told that ${id} is safe, and it is not there`);
  }
}

/** What must hold when everything has come to rest. `crashes`: how often the process died. */
export async function checkEnd(
  evidence: Evidence,
  { crashes, isCalm }: { readonly crashes: number; readonly isCalm: boolean },
): Promise<void> {
  const { log, setup, ledger } = evidence;
  const { broker } = setup;
  const held = await heldIn(log, IN, setup.partitions);
  const buried = await buriedPlaces(log);
  const copies = new Map<string, number>();
  for (const { place } of broker.arrivals) copies.set(place, (copies.get(place) ?? 0) + 1);
  const places = new Map(held.map(({ place, record }) => [place, record.id] as const));
  for (const { place, id } of broker.arrivals) {
    must(places.get(place) === id, `I2: ${id} arrived as ${place}, which it is not`);
  }
  for (const { place, record } of held) {
    const count = copies.get(place) ?? 0;
    must(count > 0 || buried.has(place), `I3: ${place} (${record.id}) did not arrive`);
    const most = isCalm ? 1 : 1 + crashes + broker.doubts;
    must(count <= most, `I5: ${place} arrived ${count} times`);
  }
  for (const message of ledger.sent.keys()) {
    const isThere = held.some(({ record }) => record.id === message);
    must(isThere, `I1: ${message} was sent until it was acked and is not there`);
  }
  if (setup.order !== "none") checkOrder(held, broker, buried);
  checkSourceOrder(held, ledger);
  if (setup.hasCopy) await checkCopy(log, held);
}

/** I4: first arrivals of a key in the order of the log. A dead letter has given up its place. */
function checkOrder(held: readonly Held[], broker: SimBroker, buried: ReadonlySet<string>): void {
  const first = new Map<string, number>();
  for (const [index, { place }] of broker.arrivals.entries()) {
    if (!first.has(place)) first.set(place, index);
  }
  const newest = new Map<string, Held>();
  for (const each of held) {
    const { place, record } = each;
    if (record.key === null || buried.has(place)) continue;
    const lane = `${record.partition}/${decodeText(record.key)}`;
    const before = newest.get(lane);
    const isLater = before === undefined || at(first, before.place) < at(first, place);
    must(isLater, `I4: ${place} arrived before ${before?.place ?? ""} of the same key`);
    newest.set(lane, each);
  }
}

function at(first: ReadonlyMap<string, number>, place: string): number {
  return first.get(place) ?? Number.POSITIVE_INFINITY;
}

/** I4 of the way in: what the source gave in order stands in order. */
function checkSourceOrder(held: readonly Held[], { produced }: Ledger): void {
  const first = new Map<string, number>();
  for (const { record } of held) {
    if (!first.has(record.id)) first.set(record.id, record.offset);
  }
  for (const [key, ids] of produced) {
    const offsets = ids.map((id) => first.get(id) ?? -1);
    const late = offsets.findIndex((offset, index) => offset < (offsets[index - 1] ?? -1));
    must(
      late < 0,
      `I4: ${ids[late] ?? ""} of the source's key ${key} stands before an earlier one`,
    );
  }
}

/** A stream as a target holds each message once, whatever happened. */
async function checkCopy(log: FileLog, held: readonly Held[]): Promise<void> {
  const copied = await heldIn(log, COPY, 1);
  const places = copied.map(({ record: { origin } }) => {
    return `${origin?.partition ?? ""}/${origin?.offset ?? ""}`;
  });
  must(new Set(places).size === places.length, "a message was copied twice into a stream");
  must(places.length === held.length, `${held.length} messages, ${places.length} copies`);
}

async function buriedPlaces(log: FileLog): Promise<Set<string>> {
  const letters = await heldIn(log, deadLetterStream(RULE), 1);
  const places = letters.map(({ record }) => {
    const header = record.headers.find(({ name }) => name === DEAD_LETTER_HEADERS.position);
    return decodeText(header?.value ?? new Uint8Array()).replace(`${IN}/`, "");
  });
  must(new Set(places).size === places.length, "a dead letter was buried twice");
  return new Set(places);
}

async function waitingPlaces(log: FileLog, key: string, index: number): Promise<Set<string>> {
  const places = new Set<string>();
  for (const { record } of await heldIn(log, waitStream(RULE, key), 1)) {
    const read = readWaitRecord(record);
    if ("lane" in read) places.add(`${index}/${read.offset}`);
  }
  return places;
}

async function heldIn(log: FileLog, stream: string, partitions: number): Promise<Held[]> {
  const held: Held[] = [];
  const { signal } = new AbortController();
  for (let index = 0; index < partitions; index++) {
    const partition = log.partition({ stream, index });
    for (let offset = partition.offsetStart; offset < partition.offsetEnd; ) {
      const batch = await partition.read(offset, { messagesMax: 1000, signal });
      must(batch !== null, "the log is closed");
      for (const record of batch.messages) {
        held.push({ place: `${index}/${record.offset}`, record });
      }
      offset = batch.next;
    }
  }
  return held;
}

function textOf({ body }: StoredMessage): string {
  return decodeText(body ?? new Uint8Array());
}
