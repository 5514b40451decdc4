/**
 * Bodies of webhooks: read within the hook's own bound, within the memory that all of them may
 * have together, and not more slowly than a pace. Those that fit into one packet, nearly all, cost
 * one promise and an entry in a set; a look each second finds those that do not come.
 */
import { gunzip } from "node:zlib";
import type { Clock } from "../clock.ts";
import { InvalidError, LimitError, RequestError } from "../errors.ts";
import {
  hookBodyGraceMs,
  hookBodyTickMs,
  hookInflateBytesMin,
  hookInflateRatioMax,
  hookShortBodyBytesMax,
} from "../limits.ts";
import { announcedLength, readParts, type TimeoutServer } from "./request.ts";

/** How long a sender waits when bodies fill the memory that they may have. Milliseconds. */
const FULL_RETRY_MS = 1000;
/** A sender that was too slow must not go on sending on this connection. */
const CLOSE = { connection: "close" };

const NOTHING_TO_END: Pick<AbortController, "abort" | "signal"> = {
  abort: () => undefined,
  signal: new AbortController().signal,
};

/** What one body is held to. */
export interface BodyBounds {
  readonly bytesMax: number;
  /** 0: any pace is well. */
  readonly bytesPerSecond: number;
}

/** A body that counts as in memory, from its announcement until it is released. */
export interface HeldBody {
  /**
   * Rejects with LimitError: it is too large, or there is no room now; with RequestError: it is
   * slow. Once it is released it may never settle.
   */
  readonly arrived: Promise<Uint8Array>;
  readonly startedMs: number;
  readonly bytesPerSecond: number;
  /** Nothing is seen of a short one before all of it is there. */
  readonly isShort: boolean;
  /** What has come; of a short one what is announced. */
  bytes: number;
  state: "arriving" | "arrived" | "released";
  readonly late: (error: RequestError) => void;
  readonly over: Pick<AbortController, "abort">;
}

/** The bodies of all hooks. */
export class HookBodies {
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #stopping: AbortSignal;
  readonly #arriving = new Set<HeldBody>();
  #looking: Promise<void> | null = null;
  #bytes = 0;

  constructor(parts: {
    readonly clock: Clock;
    readonly bytesMax: number;
    readonly stopping: AbortSignal;
  }) {
    this.#clock = parts.clock;
    this.#bytesMax = parts.bytesMax;
    this.#stopping = parts.stopping;
  }

  /** Bytes in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Tells a sender that was refused of the memory that all share. */
  mark(refusal: Response): void {
    const policy = `"hooks-memory";q=${this.#bytesMax};qu="content-bytes"`;
    const left = Math.max(0, this.#bytesMax - this.#bytes);
    refusal.headers.set("ratelimit-policy", policy);
    refusal.headers.set("ratelimit", `"hooks-memory";r=${left}`);
  }

  /**
   * Begins to read a body, which has to be released once.
   * @throws LimitError it is too large, or there is no room now: there is nothing to release.
   */
  read(request: Request, server: TimeoutServer, bounds: BodyBounds): HeldBody {
    const announced = announcedLength(request, bounds.bytesMax);
    const isShort = announced !== null && announced <= hookShortBodyBytesMax;
    if (isShort) this.#reserve(announced);
    const over = isShort ? NOTHING_TO_END : new AbortController();
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    const held: HeldBody = {
      arrived: promise,
      startedMs: this.#clock.monotonicMs(),
      bytesPerSecond: bounds.bytesPerSecond,
      isShort,
      bytes: isShort ? announced : 0,
      state: "arriving",
      late: reject,
      over,
    };
    const onPart = (bytes: number): void => {
      this.#reserve(bytes);
      held.bytes += bytes;
    };
    const reading = isShort
      ? request.bytes()
      : readParts(request, server, { bytesMax: bounds.bytesMax, onPart, signal: over.signal });
    reading.then((body) => {
      this.#arrived(held, body.length);
      resolve(body);
    }, reject);
    this.#watch(held);
    return held;
  }

  #arrived(held: HeldBody, bytes: number): void {
    if (held.state !== "arriving") return;
    this.#arriving.delete(held);
    held.state = "arrived";
    this.#bytes += bytes - held.bytes;
    held.bytes = bytes;
  }

  /**
   * A gzip body as what it was before, which then counts beside it. @throws LimitError it becomes
   * too large, or there is no room now. @throws InvalidError it is no gzip.
   */
  async inflate(held: HeldBody, body: Uint8Array, bytesMax: number): Promise<Uint8Array> {
    const byRatio = Math.max(hookInflateBytesMin, body.length * hookInflateRatioMax);
    const inflated = await inflatedBytes(body, Math.min(bytesMax, byRatio));
    this.#reserve(inflated.length);
    held.bytes += inflated.length;
    return inflated;
  }

  /** Gives back what a body took, and ends its reading when it has not arrived. */
  release(held: HeldBody): void {
    if (held.state === "arriving") {
      this.#arriving.delete(held);
      held.over.abort();
    }
    held.state = "released";
    this.#bytes -= held.bytes;
  }

  #reserve(bytes: number): void {
    if (this.#bytes + bytes > this.#bytesMax) {
      const detail = `bodies of webhooks fill the ${this.#bytesMax} bytes that they may have`;
      throw new LimitError("rate-limited", detail, FULL_RETRY_MS, "all-memory");
    }
    this.#bytes += bytes;
  }

  #watch(held: HeldBody): void {
    if (held.bytesPerSecond === 0) return;
    this.#arriving.add(held);
    if (this.#looking === null) this.#looking = this.#look();
  }

  async #look(): Promise<void> {
    while (this.#arriving.size > 0 && !this.#stopping.aborted) {
      await this.#clock.sleep(hookBodyTickMs, this.#stopping);
      const nowMs = this.#clock.monotonicMs();
      for (const each of this.#arriving) {
        if (!isLate(each, nowMs - each.startedMs)) continue;
        const detail = `a body comes with at least ${each.bytesPerSecond} bytes a second`;
        each.late(new RequestError("too-slow", detail, CLOSE));
      }
    }
    this.#looking = null;
  }
}

/** Whether a body has come too slowly; one in parts may stand still for its grace. */
function isLate({ isShort, bytes, bytesPerSecond }: HeldBody, sinceMs: number): boolean {
  if (sinceMs <= hookBodyGraceMs) return false;
  const countedMs = isShort ? sinceMs : sinceMs - hookBodyGraceMs;
  return (countedMs * bytesPerSecond) / 1000 > bytes;
}

function inflatedBytes(body: Uint8Array, maxOutputLength: number): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  gunzip(body, { maxOutputLength }, (cause, result) => {
    if (cause === null) return resolve(result);
    const isLarge = (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    if (isLarge) {
      reject(new LimitError("too-large", `the body becomes larger than ${maxOutputLength} bytes`));
    } else {
      reject(new InvalidError("the body is no gzip", [], { cause }));
    }
  });
  return promise;
}
