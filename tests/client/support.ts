/** What the client's tests share: quick waits, a reader that notes what comes, a store in memory. */
import type { Tuning } from "../../src/client/closes.ts";
import type { Store } from "../../src/client/store.ts";
import type { Message, Subscription } from "../../src/client/subscription.ts";
import { TcpProxy } from "../proxy.ts";

/** Waits so short that a test with many outages is quick. */
export const quick: Partial<Tuning> = { minMs: 10, maxMs: 200, restartMs: 50 };

/** What a loop has read so far. */
export class Reader {
  readonly messages: Message[] = [];
  readonly done: Promise<unknown>;

  /** Resolves `done` with null at the loop's end, or with what it threw. */
  constructor(subscription: Subscription, each: (message: Message) => unknown = () => null) {
    this.done = this.#read(subscription, each).catch((error: unknown) => error);
  }

  get bodies(): unknown[] {
    return this.messages.map(({ body }) => body);
  }

  async #read(subscription: Subscription, each: (message: Message) => unknown): Promise<null> {
    for await (const message of subscription) {
      this.messages.push(message);
      await each(message);
    }
    return null;
  }
}

/** A store that outlives clients, and shows what it holds. */
export class MapStore implements Store {
  readonly values = new Map<string, string>();
  isBroken = false;

  get(key: string): Promise<string | undefined> {
    return this.#do(() => this.values.get(key));
  }

  set(key: string, value: string): Promise<void> {
    return this.#do(() => void this.values.set(key, value));
  }

  delete(key: string): Promise<void> {
    return this.#do(() => void this.values.delete(key));
  }

  keys(prefix: string): Promise<readonly string[]> {
    return this.#do(() => [...this.values.keys()].filter((key) => key.startsWith(prefix)));
  }

  async #do<T>(run: () => T): Promise<T> {
    await Promise.resolve();
    if (this.isBroken) throw new Error("the store is full");
    return run();
  }
}

/** A proxy in front of a server. */
export async function proxyTo(url: string): Promise<{ proxy: TcpProxy; url: string }> {
  const upstream = { host: "127.0.0.1", port: Number(new URL(url).port) };
  const proxy = await TcpProxy.open({ upstream });
  return { proxy, url: `http://127.0.0.1:${proxy.port}` };
}

/** `0`, `1`, … up to, not including, `count`, as bodies are. */
export function numbers(count: number, start = 0): string[] {
  return Array.from({ length: count }, (_, index) => String(start + index));
}
