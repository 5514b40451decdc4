/** A rule whose target is away can be changed for a while; then a change is refused unstored. */
import { expect, test } from "bun:test";
import { boundariesMax } from "../../src/limits.ts";
import { freePort } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

test("the change that is too far ahead of its target is refused with 429, and not stored", async () => {
  await using gateway = await TestGateway.start();
  const url = `mqtt://127.0.0.1:${await freePort()}`;
  const ruleOf = (n: number): object => ({
    from: "orders",
    where: `body.n >= -${n}`,
    to: { bridge: "away", topic: "orders" },
  });
  const change = (n: number): Promise<Response> =>
    gateway.fetch("/api/rules/r", { method: "PUT", body: JSON.stringify(ruleOf(n)) });
  const revisionOf = async (): Promise<number> =>
    (await gateway.json<{ revision: number }>("/api/rules/r")).revision;
  await gateway.apply({ bridges: { away: { kind: "mqtt", url } }, rules: { r: ruleOf(1) } });
  let refused: Response | null = null;
  for (let n = 2; refused === null && n < 2 * boundariesMax; n++) {
    await gateway.json("/streams/orders/messages", { method: "POST", body: `{"n":${n}}` });
    const answer = await change(n);
    if (answer.status !== 200) refused = answer;
  }
  expect(refused?.status).toBe(429);
  expect(refused?.headers.get("retry-after")).toBe("5");
  const problem = (await refused?.json()) as { code: string; detail: string };
  expect(problem.code).toBe("rate-limited");
  expect(problem.detail).toContain("rule r has");
  expect(await revisionOf()).toBe(boundariesMax);
  const { items } = await gateway.json<{ items: unknown[] }>("/api/rules/r/revisions");
  expect(items).toHaveLength(boundariesMax);
  // What changes nothing is not refused, nor are other rules, nor readiness.
  expect((await change(boundariesMax)).status).toBe(200);
  const other = { method: "PUT", body: JSON.stringify({ from: "orders", to: { stream: "x" } }) };
  expect((await gateway.fetch("/api/rules/other", other)).status).toBe(201);
  expect((await gateway.fetch("/health/ready")).status).toBe(200);
}, 60_000);
