/** The manifest of a backup: every file of it with its size and digest. Written last. */
import { InvalidError } from "../errors.ts";

/** The manifest's name in a backup's folder. */
export const MANIFEST = "manifest.json";

/** Small files beside the log, of which only their owner may know. Each call is durable. */
export interface SmallFiles {
  /** The file's text; null when there is none. */
  read(path: string): Promise<string | null>;
  replace(path: string, text: string): Promise<void>;
  makeFolder(path: string): Promise<void>;
  remove(path: string): Promise<void>;
}

/** One file of a backup. */
export interface ManifestFile {
  /** From the backup's folder, and from the data folder. */
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  /** A sealed segment never changes again. */
  readonly sealed: boolean;
}

/** A whole backup. */
export interface Manifest {
  readonly version: 1;
  /** When the backup began, Unix milliseconds: what was acked before is in it. */
  readonly createdAtMs: number;
  readonly files: readonly ManifestFile[];
}

/** SHA-256 in hex. */
export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** Reads a manifest. @throws InvalidError it is none, or of a later release. */
export function parseManifest(text: string, where: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidError(`the manifest in ${where} is no JSON`, [], { cause: error });
  }
  const { version, files } = (value ?? {}) as { version?: unknown; files?: unknown };
  if (version !== 1) {
    throw new InvalidError(`the manifest in ${where} has version ${String(version)}; 1 is read`);
  }
  if (!Array.isArray(files) || !files.every(isEntry)) {
    throw new InvalidError(`the manifest in ${where} has no list of files`);
  }
  return value as Manifest;
}

/** Paths stay inside of the folder, whoever wrote them. */
function isEntry(value: unknown): value is ManifestFile {
  const { path, bytes, sha256: digest } = (value ?? {}) as Partial<Record<string, unknown>>;
  if (typeof path !== "string" || path.startsWith("/") || path.split("/").includes("..")) {
    return false;
  }
  return typeof digest === "string" && Number.isSafeInteger(bytes);
}
