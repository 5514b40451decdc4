/** The bridge to webhook targets, held to the port's promises for sinks on a real HTTP server. */
import { afterAll } from "bun:test";
import { http } from "../../bridges/http/module.ts";
import { encodeText, type Message, type Properties } from "../../src/message.ts";
import { TcpProxy } from "../proxy.ts";
import { freePort } from "../temporary.ts";
import { conform } from "./bridge.ts";

const PLACE_HEADER = "x-place";
const allowPrivate = ["127.0.0.0/8"];

/** What HTTP itself adds to a request, and what the bridge says in headers of its own. */
const NOT_THE_MESSAGES = new Set([
  "accept-encoding",
  "connection",
  "content-length",
  "content-type",
  "content-encoding",
  "host",
  "isthmus-tombstone",
  "user-agent",
  "webhook-id",
  "webhook-timestamp",
  PLACE_HEADER,
]);

const received = new Map<string, Message[]>();
let places = 0;

/** A header's text as the server gives it, one character for each byte, back to bytes. */
function bytesOf(value: string): Uint8Array {
  return Uint8Array.from(value, (character) => character.charCodeAt(0));
}

async function messageOf(request: Request): Promise<Message> {
  const { headers } = request;
  const contentType = headers.get("content-type");
  const contentEncoding = headers.get("content-encoding");
  const properties: Properties = {
    ...(contentType === null || contentType === "application/octet-stream" ? {} : { contentType }),
    ...(contentEncoding === null ? {} : { contentEncoding }),
  };
  return {
    id: Buffer.from(bytesOf(headers.get("webhook-id") ?? "")).toString("utf8"),
    key: null,
    properties,
    headers: [...headers]
      .filter(([name]) => !NOT_THE_MESSAGES.has(name))
      .map(([name, value]) => ({ name, value: bytesOf(value) })),
    body: await request.bytes(),
    timestampMs: Number(headers.get("webhook-timestamp")) * 1000,
    origin: null,
  };
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: await freePort(),
  async fetch(request) {
    const message = await messageOf(request);
    received.get(request.headers.get(PLACE_HEADER) ?? "")?.push(message);
    return new Response(null, { status: 202 });
  },
});
afterAll(async () => await server.stop(true));

conform({
  name: "http",
  module: http,
  config: async () => ({ url: server.url.href, allowPrivate }),
  place: async () => {
    places += 1;
    const messages: Message[] = [];
    const name = String(places);
    received.set(name, messages);
    return {
      sink: { headers: { [PLACE_HEADER]: name } },
      arrived: async () => messages,
      cleanup: async () => {
        received.delete(name);
      },
    };
  },
  deadConfig: { url: "http://127.0.0.1:9/in", allowPrivate },
  refused: (message) => ({ ...message, headers: [{ name: "not a token", value: encodeText("") }] }),
  properties: ["contentType", "contentEncoding"],
  proxied: async () => {
    const proxy = await TcpProxy.open({
      upstream: { host: "127.0.0.1", port: server.port ?? 0 },
    });
    return { config: { url: `http://127.0.0.1:${proxy.port}/in`, allowPrivate }, proxy };
  },
  skips: {
    "keeps the timestamp": "webhook-timestamp is the time of the attempt, as Standard Webhooks say",
    "notices a line that swallows everything":
      "HTTP keeps no line: a silent target is a request out of time",
    "takes a password that has changed":
      "HTTP has no login to begin with: a wrong secret is a refused request",
  },
});
