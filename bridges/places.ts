/**
 * How each kind of bridge knows its places again: which place an address sends to, and whether a
 * source reads what was sent there. What loops are found by, in the rules and on the way. A place's
 * name is what messages that were read there have as `origin.address`.
 */
import type { Place, Places } from "../src/bridge.ts";
import { isTemplate } from "./document.ts";

type Fields = Readonly<Record<string, unknown>>;

/** Kafka: the topic. */
export const kafkaPlaces: Places = {
  of: ({ topic }) => named(topic),
  feeds: (sink, source) => isSame(sink["topic"], source["topic"]),
};

/** MQTT: the topic; a source reads every topic that its filter takes. */
export const mqttPlaces: Places = {
  of: ({ topic }) => named(topic),
  feeds: ({ topic }, source) => {
    const filter = source["topic"];
    if (typeof topic !== "string" || typeof filter !== "string" || isTemplate(topic)) return false;
    // The broker's own topics are read by no wildcard.
    if (topic.startsWith("$") && !filter.startsWith("$")) return false;
    const plain = filter.split("/").map((level) => (/^\{\w+\}$/.test(level) ? "+" : level));
    return takes(plain, topic.split("/"), { one: "+", rest: "#" });
  },
};

/** AMQP 0-9-1: a queue, or an exchange with its routing key. */
export const amqpPlaces: Places = {
  of: (fields) => {
    const { queue, exchange, routingKey = "" } = fields;
    if (queue !== undefined) return named(queue);
    // Through the default exchange the routing key is the queue's name.
    if (exchange === "") return named(routingKey);
    const name = textOf(exchange);
    const detail = textOf(routingKey);
    return name === null || detail === null ? null : exchangePlace(name, detail);
  },
  feeds: (sink, source) => {
    if (source["queue"] !== undefined) {
      const queue = sink["queue"] ?? (sink["exchange"] === "" ? sink["routingKey"] : undefined);
      return isSame(queue, source["queue"]);
    }
    const key = sink["routingKey"] ?? "";
    if (!isSame(sink["exchange"], source["exchange"]) || typeof key !== "string") return false;
    if (isTemplate(key)) return false;
    const bind: readonly unknown[] = Array.isArray(source["bind"]) ? source["bind"] : [];
    return bind.some(
      (one) =>
        typeof one === "string" && takes(one.split("."), key.split("."), { one: "*", rest: "#" }),
    );
  },
};

/** The place of an exchange: apart from a queue of the same name. */
export function exchangePlace(exchange: string, routingKey: string): Place {
  return { name: `exchange ${exchange}`, detail: routingKey };
}

const AMQP1_MEMBERS = ["queue", "topic", "address"] as const;

/** AMQP 1.0: the node, whether it is asked for as a queue, a topic or an address. */
export const amqp1Places: Places = {
  of: (fields) => named(nodeOf(fields)),
  feeds: (sink, source) => isSame(nodeOf(sink), nodeOf(source)),
};

function nodeOf(fields: Fields): unknown {
  return AMQP1_MEMBERS.map((member) => fields[member]).find((one) => one !== undefined);
}

/** HTTP: the path behind the bridge's URL. Nothing is read there. */
export const httpPlaces: Places = {
  of: ({ path }) => (path === undefined ? { name: "/" } : named(path)),
  feeds: () => false,
};

function named(value: unknown): Place | null {
  const name = textOf(value);
  return name === null || name === "" ? null : { name };
}

/** A rendered field as text; a template that is one expression may have come to a number. */
function textOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "bigint" ? String(value) : null;
}

function isSame(sink: unknown, source: unknown): boolean {
  return typeof sink === "string" && !isTemplate(sink) && sink === source;
}

/** Whether a pattern takes words: `one` stands for one word, `rest` for any number of them. */
function takes(
  pattern: readonly string[],
  words: readonly string[],
  signs: { readonly one: string; readonly rest: string },
): boolean {
  // How many of the words the pattern may have taken so far.
  let taken = new Set([0]);
  for (const sign of pattern) {
    const first = Math.min(...taken);
    const next =
      sign === signs.rest
        ? words.map((_, index) => index + 1).filter((count) => count > first)
        : [...taken].flatMap((count) => {
            const isTaken = count < words.length && (sign === signs.one || sign === words[count]);
            return isTaken ? [count + 1] : [];
          });
    taken = new Set(sign === signs.rest ? [first, ...next] : next);
    if (taken.size === 0) return false;
  }
  return taken.has(words.length);
}
