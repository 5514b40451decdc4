/**
 * The two texts that a gateway is given or makes for itself at its first start: the secret key
 * and the admin token. Made once, synced before they are used, readable by their owner alone.
 */
import { InvalidError } from "../../errors.ts";
import type { Files } from "./files.ts";
import { Keyring, newSecretKey } from "./secrets.ts";
import { newToken } from "./tokens.ts";

/** Where a text comes from: the settings (null: not given), else a file of the data folder. */
export interface KeySource {
  readonly given: string | null;
  readonly files: Files;
  readonly path: string;
}

/** The path of the admin token's file in a data folder. */
export function adminTokenPath(dataFolder: string): string {
  return `${dataFolder}/admin-token`;
}

/** The path of the secret key's file in a data folder. */
export function secretKeyPath(dataFolder: string): string {
  return `${dataFolder}/secret-key`;
}

/** The admin token. @throws InvalidError it is empty. */
export async function adminToken(source: KeySource): Promise<string> {
  return (await textOf(source, "ISTHMUS_ADMIN_TOKEN")) ?? (await made(source, newToken()));
}

/**
 * The key that encrypts secrets; none is made once something has been encrypted with another.
 * @throws InvalidError it is missing, too short, or not the one that `proof` is of.
 */
export async function keyring(source: KeySource, proof: string | null): Promise<Keyring> {
  const text = await textOf(source, "ISTHMUS_SECRET_KEY");
  if (text === null && proof !== null) {
    throw new InvalidError(
      `${source.path} is missing, and the stored secrets were encrypted with it: put it back, or set ISTHMUS_SECRET_KEY`,
    );
  }
  const ring = new Keyring(text ?? (await made(source, newSecretKey())));
  if (proof !== null && !ring.proves(proof)) throw new InvalidError(wrongKey(source));
  return ring;
}

/** What is said of a key that isn't the one. */
function wrongKey(source: KeySource): string {
  const name = source.given === null ? source.path : "ISTHMUS_SECRET_KEY";
  return `${name} is not the key that the stored secrets were encrypted with`;
}

async function textOf(source: KeySource, variable: string): Promise<string | null> {
  const text = source.given ?? (await source.files.read(source.path));
  if (text === null) return null;
  const trimmed = text.trim();
  if (trimmed === "") {
    throw new InvalidError(`${source.given === null ? source.path : variable} is empty`);
  }
  return trimmed;
}

async function made(source: KeySource, text: string): Promise<string> {
  await source.files.replace(source.path, `${text}\n`);
  return text;
}
