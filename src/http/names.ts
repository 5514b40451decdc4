/**
 * Durable names: a client's subscription that outlives its connections. What is kept is one state
 * `client/SUBJECT/NAME`: the stream and the cursor after the last ack. One connection at a time
 * holds a name; the next one takes it over once the first has let go.
 */
import type { Clock } from "../clock.ts";
import { ConflictError, LimitError } from "../errors.ts";
import { nameTouchMs, nameUnusedMsMax, stateBytesMax } from "../limits.ts";
import { type Cursor, decodeCursor, encodeCursor } from "../log/cursor.ts";
import type { States } from "../log/log.ts";
import { decodeText, encodeText } from "../message.ts";

/** A name's holder can be asked to let go. */
export interface NameHolder {
  /** Which client it says to be, over all of its connections; null when it does not say. */
  readonly client: string | null;
  /** When its connection began, on the monotonic clock. */
  readonly openedMs: number;
  /** Another connection wants the name: end, and release it. */
  readonly takenOver: () => void;
  /** Progress could not be kept: it is tried again with the next ack. */
  readonly failed: (error: unknown) => void;
}

interface Saved {
  readonly stream: string;
  readonly cursor: string;
  readonly usedAtMs: number;
}

/** All durable names of a gateway. */
export class DurableNames {
  readonly #states: States;
  readonly #clock: Clock;
  readonly #claims = new Map<string, NameClaim>();

  constructor(states: States, clock: Clock) {
    this.#states = states;
    this.#clock = clock;
  }

  /**
   * Takes a name, from another connection if need be. Release it in every case.
   * @throws ConflictError the same client holds it by a later connection: what a stalled network
   *   delivers late must not take the name from where the client is now.
   */
  async claim(subject: string, name: string, holder: NameHolder): Promise<NameClaim> {
    const key = `client/${encodeURIComponent(subject)}/${name}`;
    for (;;) {
      const before = this.#claims.get(key);
      if (before === undefined) break;
      if (isLate(holder, before.holder)) {
        throw new ConflictError("conflict", "a later connection of this client holds the name");
      }
      before.holder.takenOver();
      await before.released;
    }
    const claim = new NameClaim(key, holder, {
      states: this.#states,
      clock: this.#clock,
      release: () => this.#claims.delete(key),
    });
    this.#claims.set(key, claim);
    return claim;
  }

  /**
   * Forgets the names that nobody has used for 30 days; how many. One that is held is in use,
   * whatever its state says. @throws StorageError they stay until the next time.
   */
  async sweep(): Promise<number> {
    const nowMs = this.#clock.nowMs();
    const forgotten: Promise<void>[] = [];
    for (const key of this.#states.keys("client/")) {
      const saved = savedOf(await this.#states.load(key));
      const isOver = saved !== null && nowMs - saved.usedAtMs > nameUnusedMsMax;
      // Removed in the same turn as it was seen: nobody can have taken it up in between.
      if (isOver && !this.#claims.has(key)) forgotten.push(this.#states.save([[key, null]]));
    }
    await Promise.all(forgotten);
    return forgotten.length;
  }
}

interface ClaimTools {
  readonly states: States;
  readonly clock: Clock;
  readonly release: () => void;
}

/** A name that one connection holds. */
export class NameClaim {
  readonly holder: NameHolder;
  readonly released: Promise<void>;
  readonly #key: string;
  readonly #tools: ClaimTools;
  readonly #resolve: () => void;
  #saved: Saved | null = null;
  #isDirty = false;
  #saving: Promise<void> | null = null;

  constructor(key: string, holder: NameHolder, tools: ClaimTools) {
    this.holder = holder;
    this.#key = key;
    this.#tools = tools;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.released = promise;
    this.#resolve = resolve;
  }

  /**
   * The cursor after the last ack; null for a name that is new or has expired.
   * @throws ConflictError the name belongs to another stream.
   */
  async load(stream: string): Promise<Cursor | null> {
    const saved = savedOf(await this.#tools.states.load(this.#key));
    const nowMs = this.#tools.clock.nowMs();
    if (saved === null || nowMs - saved.usedAtMs > nameUnusedMsMax) return null;
    if (saved.stream !== stream) {
      const message = `this name reads the stream ${saved.stream}: choose another one`;
      throw new ConflictError("conflict", message, { stream: saved.stream });
    }
    this.#saved = saved;
    return decodeCursor(saved.cursor);
  }

  /** Keeps where the name begins; on disk when it resolves. @throws StorageError, LimitError */
  async begin(stream: string, cursor: Cursor): Promise<void> {
    this.#saved = this.#record(stream, cursor);
    const bytes = encodeText(JSON.stringify(this.#saved));
    if (bytes.length > stateBytesMax) {
      throw new LimitError("too-large", "a stream of so many partitions can't be read by a name");
    }
    await this.#tools.states.save([[this.#key, bytes]]);
  }

  /** Moves the cursor. It is on disk soon; what is lost in between comes again. */
  move(stream: string, cursor: Cursor): void {
    this.#saved = this.#record(stream, cursor);
    this.#isDirty = true;
    this.#saving ??= this.#save();
  }

  /** Says now and then that the name is in use. */
  touch(): void {
    const saved = this.#saved;
    const nowMs = this.#tools.clock.nowMs();
    if (saved === null || nowMs - saved.usedAtMs < nameTouchMs) return;
    this.#saved = { ...saved, usedAtMs: nowMs };
    this.#isDirty = true;
    this.#saving ??= this.#save();
  }

  /** Lets go, once what was acked is on disk. Never rejects. */
  async release(): Promise<void> {
    await this.#saving;
    this.#tools.release();
    this.#resolve();
  }

  async #save(): Promise<void> {
    // Acks of one turn become one record.
    await Promise.resolve();
    try {
      while (this.#isDirty) {
        this.#isDirty = false;
        await this.#tools.states.save([[this.#key, encodeText(JSON.stringify(this.#saved))]]);
      }
    } catch (error) {
      this.holder.failed(error);
    } finally {
      this.#saving = null;
    }
  }

  #record(stream: string, cursor: Cursor): Saved {
    return { stream, cursor: encodeCursor(cursor), usedAtMs: this.#tools.clock.nowMs() };
  }
}

function isLate(holder: NameHolder, before: NameHolder): boolean {
  return (
    holder.client !== null && holder.client === before.client && holder.openedMs < before.openedMs
  );
}

function savedOf(bytes: Uint8Array | null): Saved | null {
  return bytes === null ? null : (JSON.parse(decodeText(bytes)) as Saved);
}
