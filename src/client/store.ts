/**
 * Where a client keeps what has to outlive it: publishes that were not taken yet, and cursors.
 * Writes happen one after the other, in the order asked for; what fails is told and not retried,
 * for memory still has it.
 */
import { ClientError } from "./error.ts";

/** Text by key; MMKV, AsyncStorage and the like fit in a few lines. */
export interface Store {
  get(key: string): Promise<string | null | undefined>;
  set(key: string, value: string): Promise<void>;
  delete(key: string): Promise<void>;
  /** All keys that begin with it, in any order. */
  keys(prefix: string): Promise<readonly string[]>;
}

/** One writer over a store. */
export class Keeper {
  readonly store: Store;
  readonly #failed: (error: ClientError) => void;
  #tail: Promise<void> = Promise.resolve();

  constructor(store: Store, failed: (error: ClientError) => void) {
    this.store = store;
    this.#failed = failed;
  }

  /** Keeps a value; null forgets it. */
  put(key: string, value: string | null): void {
    const { store } = this;
    this.#tail = this.#tail
      .then(() => (value === null ? store.delete(key) : store.set(key, value)))
      .catch((error: unknown) => {
        this.#failed(new ClientError("store-failed", `${key} was not kept`, error));
      });
  }

  /** Resolves when all that was asked for has been written or has failed. */
  idle(): Promise<void> {
    return this.#tail;
  }
}

interface Request<T> {
  readonly result: T;
  readonly error: unknown;
  onsuccess: (() => void) | null;
  onerror: (() => void) | null;
}

interface ObjectStore {
  get(key: string): Request<string | undefined>;
  put(value: string, key: string): Request<unknown>;
  delete(key: string): Request<unknown>;
  getAllKeys(): Request<string[]>;
}

interface Database {
  createObjectStore(name: string): unknown;
  transaction(name: string, mode: string): { objectStore(name: string): ObjectStore };
}

interface Factory {
  open(name: string, version: number): Request<Database> & { onupgradeneeded: (() => void) | null };
}

const TABLE = "kept";

/** A store in the browser's IndexedDB. @throws ClientError `unsupported`: there is none here. */
export function indexedDbStore(name: string): Store {
  const { indexedDB } = globalThis as { readonly indexedDB?: Factory };
  if (indexedDB === undefined) throw new ClientError("unsupported", "there is no IndexedDB here");
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE);
  const opened = settled(request);
  const table = async (mode: string): Promise<ObjectStore> => {
    return (await opened).transaction(TABLE, mode).objectStore(TABLE);
  };
  return {
    get: async (key) => await settled((await table("readonly")).get(key)),
    set: async (key, value) => {
      await settled((await table("readwrite")).put(value, key));
    },
    delete: async (key) => {
      await settled((await table("readwrite")).delete(key));
    },
    keys: async (prefix) => {
      const all = await settled((await table("readonly")).getAllKeys());
      return all.filter((key) => key.startsWith(prefix));
    },
  };
}

function settled<T>(request: Request<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
