/** What the log's tests share: a log over a disk, messages, and reading all of a partition. */
import { systemClock } from "../../src/clock.ts";
import type { StorageError } from "../../src/errors.ts";
import type { Disk } from "../../src/log/disk.ts";
import { type FileLog, type FileLogOptions, openFileLog } from "../../src/log/files.ts";
import type { Partition } from "../../src/log/log.ts";
import { encodeText, type Message, type StoredMessage } from "../../src/message.ts";

export interface TestLog {
  readonly log: FileLog;
  readonly warnings: string[];
  readonly fatal: StorageError[];
}

export async function openLog(
  disk: Disk,
  folder = "/data/streams",
  options: Partial<FileLogOptions> = {},
): Promise<TestLog> {
  const warnings: string[] = [];
  const fatal: StorageError[] = [];
  const log = await openFileLog({
    folder,
    disk,
    clock: systemClock,
    random: (count) => crypto.getRandomValues(new Uint8Array(count)),
    onFatal: (error) => fatal.push(error),
    onCommit: () => undefined,
    warn: (sentence) => warnings.push(sentence),
    ...options,
  });
  return { log, warnings, fatal };
}

export function message(id: string, more: Partial<Message> = {}): Message {
  return {
    id,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(`body of ${id}`),
    timestampMs: 1_700_000_000_000,
    origin: null,
    ...more,
  };
}

export async function readAll(partition: Partition, from?: number): Promise<StoredMessage[]> {
  const all: StoredMessage[] = [];
  let offset = from ?? partition.offsetStart;
  const { signal } = new AbortController();
  while (offset < partition.offsetEnd) {
    const batch = await partition.read(offset, { messagesMax: 100, signal });
    if (batch === null) break;
    all.push(...batch.messages);
    offset = batch.next;
  }
  return all;
}

export function ids(messages: readonly StoredMessage[]): string[] {
  return messages.map(({ id }) => id);
}
