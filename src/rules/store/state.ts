/**
 * The stored set: what the database and the snapshot both hold, documents sealed and unparsed.
 * Immutable; every accepted change makes another one whose version is greater by one. `change`
 * names the change that made it, so that two histories with equal numbers are told apart.
 */
import { assert } from "../../assert.ts";
import type { Grant, JsonObject, Kind } from "../document.ts";
import type { Role } from "./role-names.ts";

/** A definition as it stands. */
export interface StoredDefinition {
  readonly kind: Kind;
  readonly name: string;
  readonly revision: number;
  readonly project: string | null;
  readonly document: JsonObject;
  readonly by: string;
  readonly atMs: number;
}

/** A definition as it stood once; a null document is its deletion. */
export interface StoredRevision {
  readonly kind: Kind;
  readonly name: string;
  readonly revision: number;
  /** The version of the whole set that this revision came with. */
  readonly version: number;
  readonly project: string | null;
  readonly document: JsonObject | null;
  readonly by: string;
  readonly why: string | null;
  readonly atMs: number;
}

/** A secret, encrypted: its data key wrapped by the key named `keyId`, and its text by that. */
export interface StoredSecret {
  /** What stands in the document as `${secret:PATH}`. Bound into the encryption with `version`. */
  readonly path: string;
  readonly kind: Kind;
  readonly name: string;
  readonly version: number;
  readonly keyId: string;
  readonly wrapped: string;
  readonly sealed: string;
  readonly atMs: number;
}

/** A token, by its hash. */
export interface StoredToken {
  readonly id: string;
  readonly name: string;
  /** SHA-256 in hex. */
  readonly hash: string;
  readonly role: Role | null;
  readonly subject: string;
  readonly read: readonly Grant[];
  readonly write: readonly Grant[];
  readonly expiresAtMs: number | null;
  readonly createdAtMs: number;
  readonly createdBy: string;
  readonly revokedAtMs: number | null;
  readonly revokedBy: string | null;
  /** To the hour; null: never used. */
  readonly lastUsedAtMs: number | null;
}

export interface State {
  readonly version: number;
  /** Null only at version 0. */
  readonly change: string | null;
  readonly keyProof: string;
  readonly definitions: ReadonlyMap<string, StoredDefinition>;
  /** The last revision of each definition that was deleted: one made anew goes on from there. */
  readonly gone: ReadonlyMap<string, number>;
  /** Each rule's latest revisions, oldest first: messages under way keep theirs. */
  readonly history: ReadonlyMap<string, readonly StoredRevision[]>;
  readonly secrets: ReadonlyMap<string, StoredSecret>;
  readonly tokens: ReadonlyMap<string, StoredToken>;
}

/** Revisions kept of each rule; a message waits days at most, and rules change rarely. */
export const HISTORY_REVISIONS_MAX = 64;

/** The set before the first change. */
export function emptyState(keyProof: string): State {
  return {
    version: 0,
    change: null,
    keyProof,
    definitions: new Map(),
    gone: new Map(),
    history: new Map(),
    secrets: new Map(),
    tokens: new Map(),
  };
}

/** The key of a definition in the maps above. */
export function keyOf(definition: { readonly kind: Kind; readonly name: string }): string {
  return `${definition.kind}/${definition.name}`;
}

/** The kind and name of a key. */
export function fromKey(key: string): { readonly kind: Kind; readonly name: string } {
  const slash = key.indexOf("/");
  return { kind: key.slice(0, slash) as Kind, name: key.slice(slash + 1) };
}

/** A rule's history after one more revision. */
function withRevision(
  history: readonly StoredRevision[] | undefined,
  revision: StoredRevision,
): readonly StoredRevision[] {
  return [...(history ?? []), revision].slice(-HISTORY_REVISIONS_MAX);
}

/** The set as JSON data. */
export function stateToJson(state: State): unknown {
  return {
    version: state.version,
    change: state.change,
    keyProof: state.keyProof,
    definitions: [...state.definitions.values()],
    gone: [...state.gone],
    history: [...state.history.values()],
    secrets: [...state.secrets.values()],
    tokens: [...state.tokens.values()],
  };
}

/** The shape that `stateToJson` writes. */
interface StateJson extends Pick<State, "version" | "change" | "keyProof"> {
  readonly definitions: readonly StoredDefinition[];
  readonly gone: readonly (readonly [string, number])[];
  readonly history: readonly (readonly StoredRevision[])[];
  readonly secrets: readonly StoredSecret[];
  readonly tokens: readonly StoredToken[];
}

/** The set that `stateToJson` wrote; only for data whose checksum has been checked. */
export function stateFromJson(json: unknown): State {
  const data = json as StateJson;
  const history = new Map<string, readonly StoredRevision[]>();
  for (const revisions of data.history) {
    const first = revisions[0];
    if (first !== undefined) history.set(keyOf(first), revisions);
  }
  return {
    version: data.version,
    change: data.change,
    keyProof: data.keyProof,
    definitions: new Map(data.definitions.map((stored) => [keyOf(stored), stored])),
    gone: new Map(data.gone),
    history,
    secrets: new Map(data.secrets.map((secret) => [secret.path, secret])),
    tokens: new Map(data.tokens.map((token) => [token.id, token])),
  };
}

/** One accepted change, as it is written to the database. */
export interface Write {
  /** The version that it makes. */
  readonly version: number;
  readonly change: string;
  readonly by: string;
  readonly why: string | null;
  readonly atMs: number;
  readonly definitions: readonly StoredDefinition[];
  /** One for each definition made, changed or deleted. */
  readonly revisions: readonly StoredRevision[];
  readonly secrets: readonly StoredSecret[];
  readonly secretDeletions: readonly string[];
  readonly tokens: readonly StoredToken[];
}

/** The set after a change. */
export function applyWrite(state: State, write: Write): State {
  assert(write.version === state.version + 1, "a change makes the next version");
  const definitions = new Map(state.definitions);
  const gone = new Map(state.gone);
  const history = new Map(state.history);
  for (const stored of write.definitions) definitions.set(keyOf(stored), stored);
  for (const revision of write.revisions) {
    const key = keyOf(revision);
    if (revision.document === null) {
      definitions.delete(key);
      history.delete(key);
      gone.set(key, revision.revision);
    } else {
      gone.delete(key);
      if (revision.kind === "rules") history.set(key, withRevision(history.get(key), revision));
    }
  }
  const secrets = new Map(state.secrets);
  for (const path of write.secretDeletions) secrets.delete(path);
  for (const secret of write.secrets) secrets.set(secret.path, secret);
  const tokens = new Map(state.tokens);
  for (const token of write.tokens) tokens.set(token.id, token);
  const { version, change } = write;
  return { version, change, keyProof: state.keyProof, definitions, gone, history, secrets, tokens };
}
