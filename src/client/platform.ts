/**
 * What the client takes from where it runs: a socket, timers, chance and the two events that say
 * "try again now". Tests and runtimes that lack one of them hand in their own.
 */
import { ClientError } from "./error.ts";

/** The part of a WebSocket that is used. */
export interface SocketLike {
  onopen: (() => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: (() => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** What a runtime has to offer. */
export interface Platform {
  readonly socket: (url: string, protocol: string) => SocketLike;
  /** Runs once, after so many milliseconds; gives what cancels it. */
  readonly later: (ms: number, run: () => void) => () => void;
  /** Milliseconds that never go back. */
  readonly nowMs: () => number;
  /** Unix milliseconds, for ids. */
  readonly unixMs: () => number;
  /** From 0 up to, not including, 1. */
  readonly random: () => number;
  /** Calls when the network or the page is back; gives what ends it. */
  readonly onWake: (wake: () => void) => () => void;
}

interface EventSource {
  addEventListener?: (name: string, run: () => void) => void;
  removeEventListener?: (name: string, run: () => void) => void;
}

interface Page extends EventSource {
  readonly visibilityState?: string;
}

interface Globals extends EventSource {
  readonly document?: Page;
  readonly WebSocket?: new (url: string, protocols: string[]) => SocketLike;
}

/** The runtime's own. */
export const systemPlatform: Platform = {
  socket: (url, protocol) => {
    const { WebSocket } = globalThis as unknown as Globals;
    if (WebSocket !== undefined) return new WebSocket(url, [protocol]);
    throw new ClientError("unsupported", "there is no WebSocket here: pass `platform.socket`");
  },
  later: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  nowMs: () => performance.now(),
  unixMs: () => Date.now(),
  random: () => Math.random(),
  onWake: (wake) => {
    const globals = globalThis as unknown as Globals;
    const { document } = globals;
    const seen = (): void => {
      if (document?.visibilityState === "visible") wake();
    };
    globals.addEventListener?.("online", wake);
    document?.addEventListener?.("visibilitychange", seen);
    return () => {
      globals.removeEventListener?.("online", wake);
      document?.removeEventListener?.("visibilitychange", seen);
    };
  },
};

/** An id that sorts by time (UUID version 7), of the best chance that there is. */
export function newId(unixMs: number, random: () => number): string {
  const { crypto } = globalThis;
  const bytes = Uint8Array.from({ length: 16 }, () => random() * 256);
  crypto?.getRandomValues?.(bytes);
  for (let index = 0; index < 6; index++) bytes[index] = unixMs / 2 ** (40 - 8 * index);
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const variant = "89ab"[(bytes[8] ?? 0) & 3];
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `7${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20),
  ].join("-");
}
