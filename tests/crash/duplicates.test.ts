/**
 * Providers that send again and again while the gateway dies: a thousand copies of each of ten
 * webhooks at once from 64 connections, with kill -9 in the middle. Every copy is sent until it is
 * answered; at the end the log holds each webhook once, and every answer named that one place.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/crash/duplicates
 */
import { expect, test } from "bun:test";
import { TestGateway } from "../e2e/gateway.ts";
import { RawClient, requestBytes } from "../http/raw-client.ts";
import { SENDER_ENVIRONMENT, senderOf } from "../http/senders.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const ROUNDS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 60 : 5;
const MESSAGES = 10;
const COPIES = 1000;
const CONNECTIONS = 64;
/** The first is before anything can have been answered; the others spread over the answers. */
const KILLS = 6;

interface Round {
  readonly gateway: TestGateway;
  readonly port: number;
  readonly copies: Copy[];
  /** By message: each place that an answer has named. */
  readonly places: Map<string, Set<string>>;
  /** By message: answers that call it new. */
  readonly taken: Map<string, number>;
  answered: number;
  unanswered: number;
}

interface Copy {
  readonly id: string;
  readonly bytes: Buffer;
}

test(`copies of a webhook are one message through kill -9 (seed ${seed})`, async () => {
  console.log(`duplicates: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  const random = new Random(seed);
  await using gateway = await TestGateway.start(SENDER_ENVIRONMENT);
  const { verify } = senderOf("github");
  const port = Number(new URL(gateway.url).port);
  await gateway.apply({ streams: { in: { partitions: 3 } } });
  await gateway.apply({ hooks: { github: { stream: "in", verify } } });
  for (let number = 0; number < ROUNDS; number++) {
    const copies = copiesOf(number, random);
    const maps = { places: new Map(), taken: new Map() };
    const round = { gateway, port, copies, ...maps, answered: 0, unanswered: 0 };
    await runRound(round, random);
    const kept = (await gateway.read("in")).filter(({ body }) => body?.startsWith(`r${number}-`));
    const keptAt = kept.map(({ id, body, partition, offset }) => {
      return [body ?? "", `${id} ${partition}/${offset}`] as const;
    });
    expect(keptAt).toHaveLength(MESSAGES);
    expect(round.answered).toBe(MESSAGES * COPIES);
    // None where the gateway died between the disk and the answer.
    expect(Math.max(1, ...round.taken.values())).toBe(1);
    expect(Object.fromEntries(keptAt)).toEqual(
      Object.fromEntries([...round.places].map(([id, places]) => [id, [...places].join(" and ")])),
    );
    console.log(`duplicates: round ${number}: ${round.unanswered} sent again after a kill`);
  }
}, 600_000);

function copiesOf(round: number, random: Random): Copy[] {
  const { sign } = senderOf("github");
  const all = Array.from({ length: MESSAGES }, (_, index): Copy => {
    const id = `r${round}-${index}`;
    const body = Buffer.from(id);
    const { headers } = sign(body, { id, atS: 0 });
    return { id, bytes: requestBytes({ target: "/hooks/github", headers, body }) };
  });
  return Array.from({ length: MESSAGES * COPIES }, () => random.next())
    .map((order, index) => ({ order, copy: all[index % MESSAGES] as Copy }))
    .toSorted((left, right) => left.order - right.order)
    .map(({ copy }) => copy);
}

async function runRound(round: Round, random: Random): Promise<void> {
  const workers = Array.from({ length: CONNECTIONS }, () => sendAll(round));
  for (let kill = 0; kill < KILLS; kill++) {
    const goal = Math.floor((kill / KILLS) * MESSAGES * COPIES);
    await waitFor(`${goal} copies are answered`, () => round.answered >= goal);
    await Bun.sleep(random.below(25));
    await round.gateway.kill();
    await round.gateway.start();
  }
  await Promise.all(workers);
}

async function sendAll(round: Round): Promise<void> {
  let client = new RawClient(round.port);
  for (let copy = round.copies.pop(); copy !== undefined; copy = round.copies.pop()) {
    for (;;) {
      if (client.isClosed) client = new RawClient(round.port);
      const answer = await client.ask(copy.bytes);
      if (answer !== null) {
        expect(answer.status).toBe(202);
        note(round, copy.id, answer.body);
        break;
      }
      // It is dead, or not yet listening.
      round.unanswered += 1;
      await Bun.sleep(10);
    }
  }
  client[Symbol.dispose]();
}

function note(round: Round, sent: string, body: string): void {
  const { id, partition, offset, duplicate } = JSON.parse(body) as Record<string, unknown>;
  if (duplicate === false) round.taken.set(sent, (round.taken.get(sent) ?? 0) + 1);
  const places = round.places.get(sent) ?? new Set();
  round.places.set(sent, places.add(`${String(id)} ${String(partition)}/${String(offset)}`));
  round.answered += 1;
}
