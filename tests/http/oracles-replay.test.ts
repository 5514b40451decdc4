/**
 * A webhook that is sent again, with every scheme: inside the window of time it is the first one's
 * duplicate where its sender names messages, outside of it refused on both sides; and times that
 * are none are never taken, though they are signed.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { TestGateway } from "../e2e/gateway.ts";
import { askOnce, type RawAnswer, requestBytes } from "./raw-client.ts";
import { SENDER_ENVIRONMENT, type Sender, SENDERS, senderHooks } from "./senders.ts";

/** Far enough from the edge that a slow machine does not move a message over it. Seconds. */
const CLEAR_S = 25;
const TOLERANCE_S = 300;
const BODY = '{"id":"evt_9","event_id":"evt_9"}';

let gateway: TestGateway;
let port: number;

beforeAll(async () => {
  gateway = await TestGateway.start(SENDER_ENVIRONMENT);
  port = Number(new URL(gateway.url).port);
  await gateway.apply({ hooks: senderHooks() });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

function bytesAt(sender: Sender, atS: number, body = BODY): Buffer {
  const { headers, query } = sender.sign(Buffer.from(body), { atS, id: "msg_9" });
  const type = { "content-type": "application/json" };
  return requestBytes({
    target: `/hooks/${sender.name}${query}`,
    headers: { ...type, ...headers },
    body,
  });
}

function nowS(): number {
  return Math.floor(Date.now() / 1000);
}

/** `2xx`, or the code of the refusal. */
function outcomeOf(answer: RawAnswer | null): string {
  if (answer === null) return "closed";
  if (answer.status < 300) return "2xx";
  return `${answer.status} ${(JSON.parse(answer.body) as { code: string }).code}`;
}

const timed = SENDERS.filter(({ hasTime }) => hasTime);
const each = (senders: readonly Sender[]) =>
  senders.map((sender) => [sender.name, sender] as const);

test.each(each(SENDERS))(
  "%s: the same bytes again are one message where it names them",
  async (_name, sender) => {
    const bytes = bytesAt(sender, nowS());
    for (let time = 0; time < 3; time++) expect(outcomeOf(await askOnce(port, bytes))).toBe("2xx");
    const again = bytesAt(sender, nowS() - 30);
    expect(outcomeOf(await askOnce(port, again))).toBe("2xx");
    expect(await gateway.read(sender.name)).toHaveLength(sender.id === null ? 4 : 1);
  },
);

test.each(each(timed))(
  "%s: outside the window it is refused, before and after",
  async (_name, sender) => {
    const before = (await gateway.read(sender.name)).length;
    const outside = "401 timestamp-outside-tolerance";
    const offsets = [
      [-(TOLERANCE_S + CLEAR_S), outside],
      [-(TOLERANCE_S - CLEAR_S), "2xx"],
      [TOLERANCE_S - CLEAR_S, "2xx"],
      [TOLERANCE_S + CLEAR_S, outside],
      [-86_400, outside],
      [86_400, outside],
    ] as const;
    for (const [seconds, expected] of offsets) {
      const answer = await askOnce(port, bytesAt(sender, nowS() + seconds));
      expect([seconds, outcomeOf(answer)]).toEqual([seconds, expected]);
    }
    const kept = sender.id === null ? before + 2 : 1;
    expect(await gateway.read(sender.name)).toHaveLength(kept);
  },
);

test.each(each(timed))("%s: a signed time that is none is refused", async (_name, sender) => {
  const before = (await gateway.read(sender.name)).length;
  const fresh = nowS();
  for (const time of ["-1", "0", "1e9", `${fresh}.5`, `+${fresh}`, "NaN", "0x6a", "9".repeat(20)]) {
    const sign = (atS: string): Buffer => bytesAt(sender, atS as unknown as number);
    const outcome = outcomeOf(await askOnce(port, sign(time)));
    expect([time, outcome]).toEqual([
      time,
      time === "0" ? "401 timestamp-outside-tolerance" : "401 signature-invalid",
    ]);
  }
  expect(await gateway.read(sender.name)).toHaveLength(before);
});

const tokens = SENDERS.filter(({ signsBody, name }) => !signsBody && name !== "mtls");

test.each(each(tokens))("%s: the secret that it shows is kept nowhere", async (_name, sender) => {
  expect(outcomeOf(await askOnce(port, bytesAt(sender, nowS())))).toBe("2xx");
  const { headers } = sender.sign(Buffer.from(BODY), { atS: nowS(), id: "msg_9" });
  const [name = "", shown = ""] = Object.entries(headers)[0] ?? [];
  const stored = (await gateway.read(sender.name)).at(-1);
  expect(stored?.headers.map(([header]) => header)).not.toContain(name);
  expect(JSON.stringify(stored)).not.toContain(shown.slice(shown.indexOf(" ") + 1));
  const answer = await gateway.fetch(
    `/api/verifications/${sender.name}/${stored?.partition}/${stored?.offset}`,
  );
  expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining("not kept")]);
});

test("a hook's own tolerance narrows the window", async () => {
  await gateway.apply({
    hooks: {
      stripe: {
        stream: "narrow",
        verify: { scheme: "stripe", secret: "${env:TEXT_SECRET}", tolerance: "60s" },
      },
    },
  });
  const stripe = SENDERS.find(({ name }) => name === "stripe");
  if (stripe === undefined) throw new Error("there is no such sender");
  const outcomes: string[] = [];
  for (const seconds of [-90, -30, 30, 90]) {
    const body = `{"id":"evt_${seconds}"}`;
    outcomes.push(outcomeOf(await askOnce(port, bytesAt(stripe, nowS() + seconds, body))));
  }
  const outside = "401 timestamp-outside-tolerance";
  expect(outcomes).toEqual([outside, "2xx", "2xx", outside]);
});
