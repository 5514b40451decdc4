/**
 * The snapshot: the last good set in one synced file, with which traffic goes on while the
 * database is away. It is text: a first line that says what the rest must be, then the set.
 *
 *   {"format":1,"version":12,"bytes":3456,"sha256":"…",
 *   "state":{…}}
 *
 * `bytes` and `sha256` are of the text of the set alone. The version stands outside the sum as
 * well: of a broken file it tells what a database must hold to take its place.
 */
import { createHash } from "node:crypto";
import type { Files } from "./files.ts";
import { type State, stateFromJson, stateToJson } from "./state.ts";

/** What became of reading the snapshot. */
export type SnapshotRead =
  | { readonly kind: "missing" }
  | { readonly kind: "good"; readonly state: State }
  /**
   * `version` is null when not even the first line can be read; `byte` is where reading stopped.
   */
  | {
      readonly kind: "broken";
      readonly version: number | null;
      readonly byte: number;
      readonly reason: string;
    };

const FORMAT = 1;
const headPattern = /^\{"format":(\d+),"version":(\d+),"bytes":(\d+),"sha256":"([0-9a-f]{64})",$/;
const stateStart = '"state":';
const fileEnd = "}\n";

/** The path of the snapshot in a data folder. */
export function snapshotPath(dataFolder: string): string {
  return `${dataFolder}/definitions.json`;
}

/**
 * Replaces the snapshot; it is on disk when this resolves. @throws StorageError the old one stands.
 */
export async function writeSnapshot(files: Files, path: string, state: State): Promise<void> {
  const text = JSON.stringify(stateToJson(state));
  const bytes = Buffer.byteLength(text);
  const head = `{"format":${FORMAT},"version":${state.version},"bytes":${bytes},"sha256":"${sum(text)}",`;
  await files.replace(path, `${head}\n${stateStart}${text}${fileEnd}`);
}

/** Reads the snapshot and checks every byte of it. @throws StorageError the disk fails. */
export async function readSnapshot(files: Files, path: string): Promise<SnapshotRead> {
  const text = await files.read(path);
  return text === null ? { kind: "missing" } : decodeSnapshot(text);
}

function decodeSnapshot(text: string): SnapshotRead {
  const lineEnd = text.indexOf("\n");
  const head = headPattern.exec(lineEnd === -1 ? text : text.slice(0, lineEnd));
  if (head === null) {
    return { kind: "broken", version: null, byte: 0, reason: "its first line is not a snapshot's" };
  }
  const version = Number(head[2]);
  const broken = (byte: number, reason: string): SnapshotRead => {
    return { kind: "broken", version, byte, reason };
  };
  if (Number(head[1]) !== FORMAT) {
    return broken(0, `its format ${head[1]} is not known to this version of the program`);
  }
  const start = lineEnd + 1 + stateStart.length;
  const body = text.slice(start, -fileEnd.length);
  const framed = text.slice(lineEnd + 1, start) === stateStart && text.endsWith(fileEnd);
  const bytes = Buffer.byteLength(body);
  if (!framed || bytes !== Number(head[3])) {
    return broken(Buffer.byteLength(text), `it holds ${bytes} bytes of ${head[3]}`);
  }
  if (sum(body) !== head[4]) return broken(start, "its checksum is wrong");
  const state = stateFromJson(JSON.parse(body));
  if (state.version !== version) return broken(0, "its first line names another version");
  return { kind: "good", state };
}

function sum(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
