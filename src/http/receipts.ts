/**
 * `GET /receipts/:stream/:partition/:offset`: whether a message is on disk, with a digest of what
 * is there. The digest is SHA-256 over key, headers and body, each with its length before it as
 * 32 bits, big-endian; what is null has the length 2^32-1 and no bytes:
 *
 *     key · count of headers · for each header: name, value · body
 */
import { ForbiddenError, InvalidError, NotFoundError } from "../errors.ts";
import { decodeText, encodeText, type StoredMessage } from "../message.ts";
import { isWithin, type Principal, readReach, writeReach } from "../rules/store/roles.ts";
import { readableStream, storedAt } from "./append.ts";
import type { HttpServices } from "./services.ts";

const NULL_LENGTH = 0xffffffff;
const WHOLE = /^\d{1,15}$/;

/** The place that a receipt names, as it stands in a path. */
export interface ReceiptPath {
  readonly stream: string;
  readonly partition: string;
  readonly offset: string;
}

/** The receipt. @throws NotFoundError nothing is there, or not any more. @throws ForbiddenError */
export async function receiptResponse(
  path: ReceiptPath,
  principal: Principal,
  services: HttpServices,
): Promise<Response> {
  if (!WHOLE.test(path.partition) || !WHOLE.test(path.offset)) {
    throw new InvalidError("a receipt is /receipts/STREAM/PARTITION/OFFSET, both whole numbers");
  }
  const stream = readableStream(services, path.stream);
  const place = { partition: Number(path.partition), offset: Number(path.offset) };
  const message = await storedAt(stream, place);
  const key = message === null || message.key === null ? null : decodeText(message.key);
  const reaches = [
    readReach(principal, path.stream, key),
    writeReach(principal, path.stream, message?.key ?? null),
  ];
  const isAllowed = reaches.some((reach) => {
    return message === null ? reach !== null : isWithin(reach, message);
  });
  if (!isAllowed) {
    throw new ForbiddenError(`this token may not ask for this message of stream ${path.stream}`);
  }
  if (message === null) throw notThere(stream, place);
  return new Response(receiptText(message), {
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}

function notThere(
  stream: ReturnType<typeof readableStream>,
  { partition, offset }: { readonly partition: number; readonly offset: number },
): NotFoundError {
  const found = stream.partitions[partition];
  const place = `${stream.name}/${partition}/${offset}`;
  if (found === undefined) return new NotFoundError(`${stream.name} has no partition ${partition}`);
  if (offset >= found.offsetEnd) return new NotFoundError(`nothing has been written at ${place}`);
  return new NotFoundError(`what was at ${place} is not kept any more`);
}

function receiptText(message: StoredMessage): string {
  const { id, stream, partition, offset } = message;
  return JSON.stringify({
    id,
    stream,
    partition,
    offset,
    durable: "fsync",
    appendedAt: Math.floor(message.appendedAtMs),
    digest: `sha256:${messageDigest(message)}`,
  });
}

/** SHA-256 of a message's key, headers and body, in hex. */
export function messageDigest(message: Pick<StoredMessage, "key" | "headers" | "body">): string {
  const hash = new Bun.CryptoHasher("sha256");
  const length = (count: number): void => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(count);
    hash.update(bytes);
  };
  const part = (bytes: Uint8Array | null): void => {
    length(bytes === null ? NULL_LENGTH : bytes.length);
    if (bytes !== null) hash.update(bytes);
  };
  part(message.key);
  length(message.headers.length);
  for (const { name, value } of message.headers) {
    part(encodeText(name));
    part(value);
  }
  part(message.body);
  return hash.digest("hex");
}
