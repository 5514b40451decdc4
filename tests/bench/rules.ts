/**
 * What rules cost by themselves, over messages as the log gives them: decoding headers and parsing
 * the body is part of every figure. Medians of rounds, in microseconds for a message.
 */
import { realDisk } from "../../src/log/disk.ts";
import { encodeText, type StoredMessage, textHeader } from "../../src/message.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { type CompiledRule, compileRule } from "../../src/rules/transform.ts";
import { message, openLog } from "../log/support.ts";
import { temporaryFolder } from "../temporary.ts";
import { median, type Row } from "./table.ts";

const ROUNDS = 9;
const MESSAGES = 5000;
const RULES = 1000;
/** So many messages are enough for a thousand rules. */
const MANY_MESSAGES = 200;

const HEADER_FILTER = 'header("region") == "eu"';
const BODY_FILTER = 'body.amount > 100 && body.customer.country == "de"';
const SET: JsonObject = {
  key: "${body.customer.id}",
  headers: { "x-total": "${body.amount * body.qty}", source: "shop", "x-old": null },
  body: { id: "${body.id}", total: "${body.amount * body.qty}", items: "${body.items}" },
};

type Read = (count: number) => Promise<readonly StoredMessage[]>;

/** Measures the rows of rules. */
export async function benchRules(): Promise<Row[]> {
  await using folder = await temporaryFolder("bench-rules");
  const { log } = await openLog(realDisk, `${folder.path}/streams`);
  await using _ = log;
  const partition = log.partition({ stream: "in", index: 0 });
  await partition.append(Array.from({ length: MESSAGES }, (_each, index) => order(index))).durable;
  const read: Read = async (count) => {
    const { signal } = new AbortController();
    const messages: StoredMessage[] = [];
    for (let offset = 0; messages.length < count; ) {
      const batch = await partition.read(offset, { messagesMax: 1000, signal });
      if (batch === null) break;
      messages.push(...batch.messages);
      offset = batch.next;
    }
    return messages.slice(0, count);
  };
  return [
    await one(read, { where: HEADER_FILTER, what: "a filter of headers alone, µs", bound: 1 }),
    await one(read, {
      where: BODY_FILTER,
      what: "a filter of the body, its parsing too, µs",
      bound: 20,
    }),
    await parsedOnce(read),
    await transform(read),
    await manyRules(read),
  ];
}

function order(index: number) {
  const items = Array.from({ length: 8 }, (_, at) => ({ sku: `sku-${at}`, qty: at, price: 1.5 }));
  const customer = { id: `c-${index % 64}`, country: index % 2 === 0 ? "de" : "fr" };
  const body = JSON.stringify({ id: index, amount: 120, qty: 2, customer, items });
  const region = index % 2 === 0 ? "eu" : "us";
  const headers = [textHeader("x-old", "1"), textHeader("region", region), textHeader("a", "b")];
  return message(`order-${index}`, { body: encodeText(body), headers });
}

function rule(name: string, document: JsonObject): CompiledRule {
  const whole = { from: "in", to: { stream: "out" }, ...document };
  const parsed = parseDefinition("rules", name, whole, { modules: new Map(), bridges: new Map() });
  return compileRule(name, parsed, new Map());
}

/** Microseconds for a message: the median of rounds over messages that nobody has looked at. */
async function microseconds(
  read: Read,
  count: number,
  work: (message: StoredMessage) => void,
): Promise<number> {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const messages = await read(count);
    const startMs = performance.now();
    for (const each of messages) work(each);
    rounds.push(((performance.now() - startMs) * 1000) / messages.length);
  }
  return median(rounds);
}

async function one(
  read: Read,
  { where, what, bound }: { where: string; what: string; bound: number },
): Promise<Row> {
  const compiled = rule(`one ${where}`.replaceAll(/[^a-z]/g, "-").slice(0, 50), { where });
  const value = await microseconds(read, MESSAGES, (each) => void compiled.matches(each));
  return { what, value, bound, isAtMost: true, detail: where };
}

async function parsedOnce(read: Read): Promise<Row> {
  const filters = Array.from({ length: 10 }, (_, index) =>
    rule(`parsed-${index}`, { where: `body.amount > ${100 + index}` }),
  );
  const first = await microseconds(read, MESSAGES, (each) => void filters[0]?.matches(each));
  const all = await microseconds(read, MESSAGES, (each) => {
    for (const each_ of filters) each_.matches(each);
  });
  return {
    what: "10 filters of one body / 1 of them",
    value: all / first,
    bound: 3,
    isAtMost: true,
    detail: `${all.toFixed(2)} µs, ${first.toFixed(2)} µs: the body is parsed once`,
  };
}

async function transform(read: Read): Promise<Row> {
  const [target] = rule("transform", { set: SET }).targets;
  const value = await microseconds(read, MESSAGES, (each) => void target?.render(each));
  const detail = "key, three headers and a new JSON body, parsed and written";
  return {
    what: "a transform of key, headers and body, µs",
    value,
    bound: 40,
    isAtMost: true,
    detail,
  };
}

async function manyRules(read: Read): Promise<Row> {
  const rules = Array.from({ length: RULES }, (_, index) =>
    rule(`many-${index}`, { where: `header("region") == "region-${index}"` }),
  );
  const value = await microseconds(read, MANY_MESSAGES, (each) => {
    for (const each_ of rules) each_.matches(each);
  });
  return {
    what: `${RULES} rules, each with a header filter of its own, µs`,
    value,
    bound: RULES,
    isAtMost: true,
    detail: `${((value * 1000) / RULES).toFixed(0)} ns a rule`,
  };
}
