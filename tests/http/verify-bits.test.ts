/**
 * Every scheme over the wire: what is unchanged is taken, and a change of any one bit of body,
 * time, id or signature is refused with 401 and a code that tells nothing of what would be right.
 * One message of each scheme has every bit of it changed; random ones have some.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/http/verify-bits; more: ISTHMUS_TEST_FULL=1
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import fc from "fast-check";
import { TestGateway } from "../e2e/gateway.ts";
import { type RawAnswer, RawClient, type RawRequest, requestBytes } from "./raw-client.ts";
import { SENDER_ENVIRONMENT, type Sender, SENDERS, senderHooks } from "./senders.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 3000 : 150;
const CONNECTIONS = 4;

interface Message extends RawRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

let gateway: TestGateway;
let port: number;

beforeAll(async () => {
  console.log(`bits: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  gateway = await TestGateway.start(SENDER_ENVIRONMENT);
  port = Number(new URL(gateway.url).port);
  await gateway.apply({ hooks: senderHooks({ dedupe: false }) });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

function signedMessage(sender: Sender, body: Uint8Array, id = "msg_1"): Message {
  const { headers, query } = sender.sign(body, { atS: Math.floor(Date.now() / 1000), id });
  return { target: `/hooks/${sender.name}${query}`, headers, body: Buffer.from(body) };
}

function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  const index = (bit >> 3) % copy.length;
  copy[index] = (copy[index] ?? 0) ^ (1 << (bit & 7));
  return copy;
}

function withHeaderBit(message: Message, name: string, bit: number): Message {
  const value = Buffer.from(message.headers[name] ?? "", "latin1");
  const changed = flipped(value, bit).toString("latin1");
  return { ...message, headers: { ...message.headers, [name]: changed } };
}

/** Bits of a header from which the scheme reads; the words of HTTP's own schemes have no case. */
function headerBits({ headers }: Message, name: string): number[] {
  const value = headers[name] ?? "";
  const start = name === "authorization" ? value.indexOf(" ") + 1 : 0;
  return Array.from({ length: (value.length - start) * 8 }, (_, bit) => start * 8 + bit);
}

/** Connections that are opened again after the server has closed them. */
class Wires implements Disposable {
  readonly #idle: RawClient[] = [];

  async ask(message: Message): Promise<RawAnswer | null> {
    const kept = this.#idle.pop();
    const client = kept === undefined || kept.isClosed ? new RawClient(port) : kept;
    const answer = await client.ask(requestBytes(message));
    if (answer?.status === 400) client[Symbol.dispose]();
    else this.#idle.push(client);
    return answer;
  }

  [Symbol.dispose](): void {
    for (const client of this.#idle) client[Symbol.dispose]();
  }
}

/** Bytes that no header can hold: HTTP itself refuses them before a scheme is asked. */
function hasControl({ headers }: Message): boolean {
  // oxlint-disable-next-line no-control-regex -- it is these that are looked for
  return Object.values(headers).some((value) => /[\x00-\x08\x0a-\x1f\x7f]/.test(value));
}

/** Null: refused as it has to be. Otherwise what is wrong. */
function wrongRefusal(sender: Sender, message: Message, right: Message, answer: RawAnswer | null) {
  if (hasControl(message) && (answer === null || answer.status === 400)) return null;
  if (answer === null) return "the connection was closed";
  if (answer.status !== 401) return `answered ${answer.status} ${answer.body}`;
  const { code } = JSON.parse(answer.body) as { code?: string };
  if (code !== "signature-invalid") return `refused as ${code}`;
  const told = sender.covered
    .flatMap((name) => (right.headers[name] ?? "").split(/[=, ]/))
    .filter((part) => part.length > 9 && answer.body.includes(part));
  return told.length === 0 ? null : `told ${told.join(" and ")}`;
}

async function everyBit(sender: Sender, right: Message): Promise<string[]> {
  using wires = new Wires();
  const changed = sender.covered.flatMap((name) =>
    headerBits(right, name).map((bit) => [`${name} ${bit}`, withHeaderBit(right, name, bit)]),
  ) as [string, Message][];
  const bodyBits = sender.signsBody ? right.body.length * 8 : 0;
  for (let bit = 0; bit < bodyBits; bit++) {
    changed.push([`body ${bit}`, { ...right, body: flipped(right.body, bit) }]);
  }
  const wrong: string[] = [];
  const worker = async (): Promise<void> => {
    for (let next = changed.pop(); next !== undefined; next = changed.pop()) {
      const [what, message] = next;
      const problem = wrongRefusal(sender, message, right, await wires.ask(message));
      if (problem !== null) wrong.push(`${what}: ${problem}`);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, worker));
  return wrong;
}

test.each(SENDERS.map((sender) => [sender.name, sender] as const))(
  "%s: with any one bit changed a message is refused and not kept",
  async (_name, sender) => {
    const body = Buffer.from('{"id":"evt_1","text":"é漢","n":1.0}');
    const right = signedMessage(sender, body);
    using wires = new Wires();
    expect((await wires.ask(right))?.status).toBeWithin(200, 205);
    expect(await everyBit(sender, right)).toEqual([]);
    expect((await wires.ask(right))?.status).toBeWithin(200, 205);
    expect(await gateway.read(sender.name)).toHaveLength(2);
  },
  60_000,
);

test.each(SENDERS.map((sender) => [sender.name, sender] as const))(
  "%s: random messages are taken as they are, and refused with one bit changed",
  async (_name, sender) => {
    using wires = new Wires();
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 });
    const ids = fc.stringMatching(/^[\w-]{1,40}$/);
    const property = fc.asyncProperty(bytes, ids, fc.nat(), fc.nat(), async (body, id, at, bit) => {
      const right = signedMessage(sender, body, id);
      expect((await wires.ask(right))?.status).toBeWithin(200, 205);
      const name = sender.covered[at % sender.covered.length] ?? "";
      const bits = headerBits(right, name);
      const other = withHeaderBit(right, name, bits[bit % bits.length] ?? 0);
      expect(wrongRefusal(sender, other, right, await wires.ask(other))).toBeNull();
      if (!sender.signsBody) return;
      const changed = { ...right, body: flipped(body, bit % (body.length * 8)) };
      expect(wrongRefusal(sender, changed, right, await wires.ask(changed))).toBeNull();
    });
    await fc.assert(property, { seed, numRuns: RUNS });
  },
  600_000,
);
