/**
 * Damaged segment headers at a start. A header says little that stands nowhere else: the salt is in
 * every batch, the offset in the file's name, the epoch in the other segments. So it is made anew,
 * and every message behind it stays readable. The damage is entered and its bytes are copied before
 * the file is changed: a crash in between finds the same damage again.
 */
import { join } from "node:path";
import { CorruptionError } from "../errors.ts";
import { parseBatchHeader, payloadIsValid } from "./batch.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import type { Corruption } from "./recover.ts";
import {
  createSegmentFile,
  encodeSegmentHeader,
  parseSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
} from "./segment.ts";
import { readWhole } from "./verify.ts";

/** What mending needs of its surroundings. */
export interface Mending {
  readonly disk: Disk;
  /** The partition's folder. */
  readonly folder: string;
  /** A new epoch, for a partition whose own is in no file any more. */
  readonly newEpoch: () => string;
  /** Resolves once a damage and a copy of its bytes are on disk. */
  readonly note: (epoch: string, found: Corruption) => Promise<unknown>;
  /** Whether to go on when what a segment held is lost as well. */
  readonly mayLose: boolean;
}

/** A header for a damaged one; `lost`: what is lost beside the header, if anything is. */
interface Mended {
  readonly header: SegmentHeader;
  readonly lost: string | null;
  /** Whether any batch behind the header can be read. */
  readonly isReadable: boolean;
}

const EPOCH_LOST = "clients' cursors from before meet a gap, routes begin where their rules say";
const CONTENT_LOST = `no batch behind it can be read: what it held is lost; ${EPOCH_LOST}`;

const REFUSED = "saved progress is damaged; serve --accept-corruption goes on without it";

/** Whether an error says that a segment's header is damaged, and not of another release. */
export function isHeaderDamage(error: unknown): error is CorruptionError {
  return error instanceof CorruptionError && error.byte === 0;
}

/**
 * Makes every damaged header of a partition's segments anew, durably. `bases` are those of all its
 * segments. @throws CorruptionError a header of another release, or more is lost than may be.
 * @throws StorageError it can be called again.
 */
export async function mendHeaders(bases: readonly Offset[], mending: Mending): Promise<void> {
  const whole: SegmentHeader[] = [];
  const damaged: { base: Offset; next: Offset | undefined; path: string }[] = [];
  for (const [index, base] of bases.entries()) {
    const path = join(mending.folder, segmentName(base));
    const header = readHeader(await readHead(mending.disk, path), path);
    if (header === null) damaged.push({ base, next: bases[index + 1], path });
    else whole.push(header);
  }
  for (const { base, next, path } of damaged) {
    const content = await readWhole(mending.disk, path);
    const mended = headerFor(content, { base, next, path, whole, newEpoch: mending.newEpoch });
    await mend({ content, path, next }, mended, mending);
    whole.push(mended.header);
  }
}

async function readHead(disk: Disk, path: string): Promise<Buffer> {
  const file = await disk.open(path, "read");
  try {
    const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
    return head.subarray(0, await file.read(head, 0));
  } finally {
    await file.close();
  }
}

function readHeader(content: Buffer, path: string): SegmentHeader | null {
  try {
    return parseSegmentHeader(content, path);
  } catch (error) {
    if (isHeaderDamage(error)) return null;
    throw error;
  }
}

async function mend(
  segment: { readonly content: Buffer; readonly path: string; readonly next: Offset | undefined },
  { header, lost, isReadable }: Mended,
  { disk, folder, note, mayLose }: Mending,
): Promise<void> {
  const { content, path, next } = segment;
  const from = header.baseOffset;
  // What a segment held that another one follows is known even when none of it can be read.
  const to = isReadable ? from : (next ?? from);
  const bytes = isReadable ? SEGMENT_HEADER_BYTES : content.length;
  const found = { path, byte: 0, bytes, from, to, ...(lost === null ? {} : { lost }) };
  await note(header.epoch, found);
  if (!isReadable) {
    if (!mayLose) throw new CorruptionError(REFUSED, { path, byte: 0 });
    await (await createSegmentFile(disk, folder, header)).close();
    return;
  }
  const file = await disk.open(path, "write");
  try {
    file.write(encodeSegmentHeader(header), 0);
    await file.sync();
  } finally {
    await file.close();
  }
}

interface Known {
  readonly base: Offset;
  readonly next: Offset | undefined;
  readonly path: string;
  /** The partition's headers that are whole. */
  readonly whole: readonly SegmentHeader[];
  readonly newEpoch: () => string;
}

function headerFor(content: Buffer, known: Known): Mended {
  const { base, next, whole } = known;
  const exact = withoutFlippedBit(content, known);
  if (exact !== null) return { header: exact, lost: null, isReadable: true };
  const first = firstBatch(content, base);
  const beside = whole.findLast(({ baseOffset }) => baseOffset < base) ?? whole[0];
  const { createdAtMs = 0, partitions = 0 } = beside ?? {};
  if (first === null) {
    const salt = Bun.hash.crc32(content);
    // The newest one's offsets will be written anew: they must not pass for those told of before.
    const epoch = next === undefined ? known.newEpoch() : (beside?.epoch ?? known.newEpoch());
    const lost = next === undefined ? CONTENT_LOST : null;
    const header = { salt, baseOffset: base, epoch, createdAtMs, partitions };
    return { header, lost, isReadable: false };
  }
  const epoch = beside?.epoch ?? epochIn(content);
  const { salt, appendedAtMs } = first;
  const own = { salt, baseOffset: base, createdAtMs: appendedAtMs, partitions };
  const header = { ...own, epoch: epoch ?? known.newEpoch() };
  return { header, lost: epoch === null ? EPOCH_LOST : null, isReadable: true };
}

/** The header without the one bit that was flipped, if that is all: its checksum tells which. */
function withoutFlippedBit(content: Buffer, { base, path }: Known): SegmentHeader | null {
  const head = Buffer.from(content.subarray(0, SEGMENT_HEADER_BYTES));
  for (let bit = 0; bit < head.length * 8; bit++) {
    const at = bit >> 3;
    const mask = 1 << (bit & 7);
    head.writeUInt8((head[at] ?? 0) ^ mask, at);
    const header = readHeader(head, path);
    if (header?.baseOffset === base) return header;
    head.writeUInt8((head[at] ?? 0) ^ mask, at);
  }
  return null;
}

/** What stands where the epoch does: when it isn't one any more it makes no cursor's epoch. */
function epochIn(content: Buffer): string | null {
  const text = content.toString("latin1", 24, 40);
  return /^[0-9a-f]{16}$/.test(text) ? text : null;
}

function firstBatch(content: Buffer, base: Offset) {
  for (let at = content.indexOf("IBAT"); at >= 0; at = content.indexOf("IBAT", at + 1)) {
    const batch = parseBatchHeader(content, at, null);
    if (batch !== null && batch.baseOffset >= base && payloadIsValid(content, at, batch)) {
      return batch;
    }
  }
  return null;
}
