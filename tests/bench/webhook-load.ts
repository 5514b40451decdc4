/**
 * Load for the bench of webhooks: requests made and signed beforehand, over keep-alive connections
 * on plain sockets, either as fast as answers come or at a fixed rate. At a rate, time counts from
 * when a request was due: one that had to wait for a connection has waited.
 */
import { createHmac } from "node:crypto";
import { RawClient, requestBytes } from "../http/raw-client.ts";

export const SECRET = "whsec_of_the_bench";
const PAD = "x".repeat(1200);

/** Events of Stripe's shape, each its own, signed at this moment. */
export function stripeEvents(hook: string, count: number, run: string): Buffer[] {
  const atS = Math.floor(Date.now() / 1000);
  return Array.from({ length: count }, (_, index) => {
    const object = { id: `in_${index}`, customer: `cus_${index % 64}`, amount: 1250, pad: PAD };
    const event = { id: `evt_${run}_${index}`, object: "event", type: "invoice.paid" };
    const body = JSON.stringify({ ...event, data: { object } });
    const mac = createHmac("sha256", SECRET).update(`${atS}.${body}`).digest("hex");
    const headers = {
      "content-type": "application/json",
      "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
      "stripe-signature": `t=${atS},v1=${mac}`,
    };
    return requestBytes({ target: `/hooks/${hook}`, headers, body });
  });
}

/** Sends all, as fast as answers come. */
export async function sendAll(port: number, requests: Buffer[], connections: number) {
  let next = 0;
  const worker = async (): Promise<void> => {
    using client = new RawClient(port);
    while (next < requests.length) {
      const answer = await client.ask(requests[next++] as Buffer);
      if (answer?.status !== 202) throw new Error(`answered ${answer?.status} ${answer?.body}`);
    }
  };
  await Promise.all(Array.from({ length: connections }, worker));
}

/** Sends all at a rate, and gives each one's time from when it was due, milliseconds. */
export async function sendAt(
  port: number,
  requests: readonly Buffer[],
  options: { readonly perSecond: number; readonly connections: number },
): Promise<number[]> {
  const { perSecond, connections } = options;
  const idle = Array.from({ length: connections }, () => new RawClient(port));
  const all = [...idle];
  const due: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  const timesMs: number[] = [];
  const pending: Promise<void>[] = [];
  const serve = async (client: RawClient): Promise<void> => {
    for (let one = due.shift(); one !== undefined; one = due.shift()) {
      const answer = await client.ask(one.bytes);
      if (answer?.status !== 202) throw new Error(`answered ${answer?.status} ${answer?.body}`);
      timesMs.push(performance.now() - one.dueMs);
    }
    idle.push(client);
  };
  const startMs = performance.now();
  for (let sent = 0; sent < requests.length; ) {
    const goal = Math.min(
      requests.length,
      Math.floor(((performance.now() - startMs) / 1000) * perSecond) + 1,
    );
    for (; sent < goal; sent++) {
      due.push({
        bytes: requests[sent] as Buffer,
        dueMs: startMs + (sent / perSecond) * 1000,
      });
      const client = idle.pop();
      if (client !== undefined) pending.push(serve(client));
    }
    await Bun.sleep(1);
  }
  await Promise.all(pending);
  for (const client of all) client[Symbol.dispose]();
  return timesMs;
}
