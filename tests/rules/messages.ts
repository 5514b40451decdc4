/**
 * Messages and bridge modules for tests of rules. The modules know enough of addresses to be told
 * apart; they connect to nothing.
 */
import type { BridgeModule, Capabilities } from "../../src/bridge.ts";
import { InvalidError } from "../../src/errors.ts";
import { encodeText, type Message, type StoredMessage, textHeader } from "../../src/message.ts";
import { readable } from "../../src/rules/readable.ts";

/** What a test says of a message; the rest is usual. */
export interface Given extends Partial<Omit<StoredMessage, "body" | "key" | "headers">> {
  readonly body?: string | Uint8Array | null;
  readonly key?: string | Uint8Array | null;
  readonly headers?: readonly (readonly [string, string | Uint8Array | null])[];
}

/** A message as the log gives it. */
export function stored(given: Given = {}): StoredMessage {
  const { body = "{}", key = null, headers = [], ...rest } = given;
  const message: Message = {
    id: "m-1",
    properties: {},
    timestampMs: 1_700_000_000_000,
    origin: null,
    ...rest,
    key: typeof key === "string" ? encodeText(key) : key,
    headers: headers.map(([name, value]) =>
      typeof value === "string" ? textHeader(name, value) : { name, value },
    ),
    body: typeof body === "string" ? encodeText(body) : body,
  };
  const place = { stream: "orders", partition: 0, offset: 7, appendedAtMs: 1_700_000_000_001 };
  return Object.assign(readable(message), place, {
    ...(rest.stream === undefined ? {} : { stream: rest.stream }),
    ...(rest.offset === undefined ? {} : { offset: rest.offset }),
  });
}

const capabilities: Capabilities = {
  order: "partition",
  replay: false,
  headers: "bytes",
  key: true,
  tombstones: true,
  redeliverOnNack: true,
  sharedGroups: false,
  failure: "independent",
  source: true,
  sink: true,
};

/** A module whose addresses have the given fields; the first one is needed. */
export function testModule(
  kind: string,
  fields: readonly string[],
  more: Partial<BridgeModule> = {},
): BridgeModule {
  const [first = ""] = fields;
  return {
    kind,
    capabilities,
    addressSpecials: {},
    parseConfig(input) {
      const config = input as Record<string, unknown>;
      if (typeof config["url"] === "string") return config;
      throw new InvalidError("url", [{ pointer: "/url", detail: "expected a URL" }]);
    },
    parseAddress(input) {
      const unknown = Object.keys(input).filter((key) => !fields.includes(key));
      const errors = unknown.map((key) => ({ pointer: `/${key}`, detail: "unknown key" }));
      if (input[first] === undefined && first !== "") {
        errors.push({ pointer: `/${first}`, detail: "is missing" });
      }
      if (errors.length > 0) throw new InvalidError("address", errors);
      return { text: `${first} ${String(input[first])}`, fields: input };
    },
    connect: () => Promise.reject(new InvalidError("connects to nothing")),
    ...more,
  };
}

/** The modules that tests refer to, by kind. */
export const modules: ReadonlyMap<string, BridgeModule> = new Map(
  [
    testModule("kafka", ["topic", "group", "create"], { addressSpecials: { topic: "/" } }),
    testModule("amqp", ["exchange", "routingKey", "queue"], {
      aliases: ["rabbitmq"],
      addressSpecials: { routingKey: ".*#" },
    }),
    testModule("mqtt", ["topic", "qos", "retain"], { addressSpecials: { topic: "/+#" } }),
    testModule("http", [], { capabilities: { ...capabilities, source: false } }),
  ].map((module) => [module.kind, module]),
);

/** Bridges of each kind. */
export const bridges: ReadonlyMap<string, { readonly kind: string }> = new Map([
  ["eu", { kind: "kafka" }],
  ["rabbit", { kind: "rabbitmq" }],
  ["plant", { kind: "mqtt" }],
  ["crm", { kind: "http" }],
]);

/** What a refused definition got, detail by pointer, in the order given. */
export function problemsOf(run: () => unknown): Record<string, string> {
  try {
    run();
  } catch (cause) {
    if (!(cause instanceof InvalidError)) throw cause;
    if (cause.code !== "definition-invalid" || cause.message.includes("\n")) throw cause;
    return Object.fromEntries(cause.errors.map((error) => [error.pointer, error.detail]));
  }
  throw new Error("it was not refused");
}
