/**
 * Publishes on their way: each is kept until the server has it on disk, in the order published,
 * and said again after every reconnect under the same id, which makes it one message. Bounded:
 * what does not fit is refused and never waits unseen.
 */
import { ClientError, isPassing } from "./error.ts";
import { publishText, type PublishInput, type ServerFrame } from "./frames.ts";
import type { Keeper } from "./store.ts";

/** How much may wait. */
export interface OutboxBounds {
  readonly messages: number;
  /** Of UTF-8, as frames. */
  readonly bytes: number;
}

export const defaultBounds: OutboxBounds = { messages: 100, bytes: 1_000_000 };
/** Larger frames make the server end the connection, and would do so after each reconnect. */
const frameBytesMax = 16 * 1024 * 1024;
const PREFIX = "outbox/";

/** The message is on disk. */
export interface Receipt {
  readonly id: string;
  readonly stream: string;
  readonly partition: number;
  readonly offset: number;
  /** It was there already, from an earlier publish with this id. */
  readonly duplicate: boolean;
}

/** What an outbox is made from. */
export interface OutboxParts {
  readonly bounds: OutboxBounds;
  readonly keeper: Keeper | null;
  readonly newId: () => string;
  readonly send: (text: string) => boolean;
  /** A publish of an earlier run was refused; nobody waits for its receipt. */
  readonly refused: (error: ClientError) => void;
  /** Calls back after a wait that suits a server in trouble. */
  readonly pause: (run: () => void) => void;
}

interface Entry {
  readonly id: string;
  readonly stream: string;
  /** The frame but for its `ref`. */
  readonly text: string;
  readonly bytes: number;
  readonly key: string;
  readonly resolve: (receipt: Receipt) => void;
  readonly reject: (error: ClientError) => void;
}

/** The publishes of a client. */
export class Outbox {
  readonly #parts: OutboxParts;
  /** By `ref`, in the order published. */
  #entries = new Map<string, Entry>();
  #bytes = 0;
  #refs = 0;
  /** Of this run: keys sort by the run's start and then by the order published. */
  readonly #run: string;
  #count = 0;
  #ended: ClientError | null = null;
  #isPaused = false;

  constructor(parts: OutboxParts) {
    this.#parts = parts;
    this.#run = parts.newId();
  }

  /** Takes up what an earlier run left, before what was published since. */
  async load(): Promise<void> {
    const { keeper, refused } = this.#parts;
    if (keeper === null) return;
    const kept: [key: string, text: string][] = [];
    for (const key of [...(await keeper.store.keys(PREFIX))].sort()) {
      const text = await keeper.store.get(key);
      if (typeof text === "string") kept.push([key, text]);
    }
    if (this.#ended !== null) return;
    const since = this.#entries;
    const own = new Set([...since.values()].map(({ key }) => key));
    this.#entries = new Map();
    const reject = (error: ClientError): void => {
      if (this.#ended === null) refused(error);
    };
    for (const [key, text] of kept) {
      if (own.has(key)) continue;
      const { id, stream } = JSON.parse(text) as Entry;
      this.#add({ id, stream, text, key, resolve: () => undefined, reject });
    }
    for (const [ref, entry] of since) this.#entries.set(ref, entry);
  }

  /** Resolves when the message is on disk. Rejects with ClientError. */
  async publish(stream: string, input: PublishInput, signal?: AbortSignal): Promise<Receipt> {
    if (signal?.aborted === true) throw new ClientError("aborted", "it was not published");
    const id = input.id ?? this.#parts.newId();
    const text = publishText(stream, input, id);
    const key = `${PREFIX}${this.#run}/${String(++this.#count).padStart(12, "0")}`;
    let ref = "";
    const abort = (): void => {
      this.#take(ref)?.reject(new ClientError("aborted", "it may have been published"));
    };
    try {
      return await new Promise((resolve, reject) => {
        ref = this.#add({ id, stream, text, key, resolve, reject }, true);
        this.#parts.keeper?.put(key, text);
        signal?.addEventListener("abort", abort);
        if (!this.#isPaused) this.#parts.send(frameOf(ref, text));
      });
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Says all again that the server has not settled; call when a connection is there. */
  resend(): void {
    for (const [ref, { text }] of this.#entries) this.#parts.send(frameOf(ref, text));
  }

  /** A `published` frame, or an `error` about a publish. */
  settle(frame: ServerFrame): void {
    const { op, ref = "", partition = 0, offset = 0, duplicate = false, code = "" } = frame;
    if (op === "error" && isPassing(code)) return this.#pause();
    const entry = this.#take(ref);
    if (entry === undefined) return;
    const { id, stream } = entry;
    if (op === "published") return entry.resolve({ id, stream, partition, offset, duplicate });
    entry.reject(new ClientError(code, frame.message ?? code));
  }

  /** Ends: who waits is told so; what is kept stays kept for the next run. */
  end(error: ClientError): void {
    this.#ended = error;
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    for (const { reject } of entries) reject(error);
  }

  #add(entry: Omit<Entry, "bytes">, isBounded = false): string {
    const bytes = new TextEncoder().encode(entry.text).length;
    const { bounds } = this.#parts;
    if (this.#ended !== null) throw this.#ended;
    if (isBounded) {
      if (bytes > frameBytesMax) throw new ClientError("too-large", `${bytes} bytes are too many`);
      if (this.#entries.size >= bounds.messages || this.#bytes + bytes > bounds.bytes) {
        throw new ClientError("outbox-full", "too much waits to be published");
      }
    }
    const ref = `p${++this.#refs}`;
    this.#entries.set(ref, { ...entry, bytes });
    this.#bytes += bytes;
    return ref;
  }

  #take(ref: string): Entry | undefined {
    const entry = this.#entries.get(ref);
    if (entry === undefined) return undefined;
    this.#entries.delete(ref);
    this.#bytes -= entry.bytes;
    this.#parts.keeper?.put(entry.key, null);
    return entry;
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#parts.pause(() => {
      this.#isPaused = false;
      this.resend();
    });
  }
}

function frameOf(ref: string, text: string): string {
  return `{"ref":"${ref}",${text.slice(1)}`;
}
