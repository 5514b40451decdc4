/** The clients of the fan-out bench as it speaks to them, and what it does on a gateway for them. */
import { join } from "node:path";
import type { TestGateway } from "../e2e/gateway.ts";
import type { Command, OpenCommand } from "./fanout-clients.ts";

const BODY = "x".repeat(256);

/** The clients' process. */
export class Clients implements AsyncDisposable {
  readonly #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  readonly #child = Bun.spawn([process.execPath, join(import.meta.dir, "fanout-clients.ts")], {
    stdio: ["ignore", "inherit", "inherit"],
    ipc: (answer: { ok: boolean; error?: string }) => {
      const waiting = this.#waiting.shift();
      if (answer.ok) waiting?.resolve();
      else waiting?.reject(new Error(answer.error));
    },
  });

  ask(command: Command): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ resolve, reject });
    this.#child.send(command);
    return promise;
  }

  open(more: Omit<OpenCommand, "path" | "isStuck"> & { isStuck?: boolean }): Promise<void> {
    return this.ask({ op: "open", path: "/socket", isStuck: false, ...more });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }
}

/** Publishes so many messages of 256 bytes. */
export async function publish(gateway: TestGateway, stream: string, count: number): Promise<void> {
  const body = Array.from({ length: count }, () => JSON.stringify({ body: BODY })).join("\n");
  const headers = { "content-type": "application/x-ndjson" };
  const path = `/streams/${stream}/messages`;
  const answer = await gateway.fetch(path, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(await answer.text());
}

/** What a client says first. */
export function hello(gateway: TestGateway, stream: string, from: string): object[] {
  return [
    { op: "auth", token: gateway.token },
    { op: "subscribe", sub: "s", stream, from },
  ];
}

/** Where a gateway listens. */
export function portOf(gateway: TestGateway): number {
  return Number(new URL(gateway.url).port);
}
