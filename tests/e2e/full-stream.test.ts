/** A stream that is kept until it is routed, and full: what its senders and its operator see. */
import { expect, test } from "bun:test";
import { freePort, waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

test("a full stream answers 503 while a rule holds it, and names the rule", async () => {
  await using gateway = await TestGateway.start();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/`;
  const rule = { from: "in", start: "earliest", to: { bridge: "crm" } };
  await gateway.apply({
    bridges: { crm: { kind: "http", url, allowPrivate: ["127.0.0.0/8"] } },
    streams: { in: { retention: { after: "routed", messages: 10 } } },
    hooks: { in: { stream: "in" } },
    rules: { slow: rule },
  });
  const post = (): Promise<Response> =>
    fetch(`${gateway.url}/hooks/in`, { method: "POST", body: "x" });
  for (let count = 0; count < 10; count++) expect((await post()).status).toBe(202);
  const refused = await post();
  expect(refused.status).toBe(503);
  expect(await refused.json()).toMatchObject({
    code: "storage-unavailable",
    detail: expect.stringContaining("rule slow has yet to pass 10 messages") as string,
    rule: "slow",
  });
  expect(refused.headers.get("retry-after")).not.toBeNull();
  const metrics = await (await gateway.fetch("/metrics")).text();
  expect(metrics).toContain('isthmus_stream_refused_total{stream="in"} 1');
  // A rule that is disabled holds nothing, and holds again when it is enabled.
  await gateway.apply({ rules: { slow: { ...rule, enabled: false } } });
  expect((await post()).status).toBe(202);
  await gateway.apply({ rules: { slow: rule } });
  expect((await post()).status).toBe(503);
  using crm = Bun.serve({ hostname: "127.0.0.1", port, fetch: () => new Response("") });
  expect(crm.port).toBe(port);
  // As soon as the rule goes on, and with nothing else to be done.
  await waitFor("it takes messages again", async () => (await post()).status === 202);
}, 120_000);
