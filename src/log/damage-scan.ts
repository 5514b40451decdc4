/**
 * Where a damage begins and ends: what a reader that met bad bytes in a segment reports. The same
 * place as recovery and `log verify` would name, so that one damage is one entry.
 */
import { batchesIn, payloadIsValid } from "./batch.ts";
import type { Offset } from "./log.ts";
import type { Corruption } from "./recover.ts";
import { SEGMENT_HEADER_BYTES, type Segment } from "./segment.ts";

/**
 * The damage of a segment that hides an offset; it ends at `end` at the latest, where the segment
 * does. Null when the offset can be read after all. @throws StorageError the disk can't be read.
 */
export async function locateDamage(
  segment: Segment,
  offset: Offset,
  end: Offset,
): Promise<Corruption | null> {
  let position: number | null = await segment.positionBefore(offset);
  const atStart = position === SEGMENT_HEADER_BYTES;
  const good = { position, offset: atStart ? segment.baseOffset : offset, isKnown: atStart };
  while (position !== null && position < segment.endPosition) {
    const chunk = await segment.readChunk(position);
    let consumed = 0;
    for (const { header, at, end: behind } of batchesIn(chunk, segment.salt)) {
      consumed = behind;
      const next = header.baseOffset + header.count;
      if (!payloadIsValid(chunk, at, header)) {
        good.offset = good.isKnown ? good.offset : Math.min(offset, header.baseOffset);
        good.isKnown = true;
        continue;
      }
      if (header.baseOffset > offset) {
        return damageOf(segment, good, [position + at, Math.min(header.baseOffset, end)]);
      }
      if (next > offset) return null;
      Object.assign(good, { position: position + behind, offset: next, isKnown: true });
    }
    position = consumed > 0 ? position + consumed : await segment.nextBatch(position + 1);
  }
  return damageOf(segment, good, [segment.endPosition, end]);
}

function damageOf(
  segment: Segment,
  good: { readonly position: number; readonly offset: Offset },
  [position, to]: readonly [number, Offset],
): Corruption {
  const { position: byte, offset: from } = good;
  return { path: segment.path, byte, bytes: Math.max(0, position - byte), from, to };
}
