/**
 * `traceparent` and `tracestate` in each protocol's place, from any bridge to any other: carried as
 * they came, never made up, never altered.
 */
import { expect, test } from "bun:test";
import { encodeMessage as encodeHttp } from "../../bridges/http/codec.ts";
import { decodeText, type Header, type Message, textHeader } from "../../src/message.ts";
import { asEvent } from "../../src/cloudevents/write.ts";
import { nowMs, pairs, wires } from "./wires.ts";

const trace: readonly Header[] = [
  textHeader("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
  textHeader("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
];

function message(headers: readonly Header[]): Message {
  const body = new Uint8Array([1]);
  return { id: "m", key: null, properties: {}, headers, body, timestampMs: nowMs, origin: null };
}

function texts({ headers }: Message): readonly (readonly [string, string])[] {
  const named = headers.filter(({ name }) => name.startsWith("trace"));
  return named.map(({ name, value }) => [name, decodeText(value ?? new Uint8Array())]);
}

const expected = texts(message(trace));

for (const [from, to] of pairs) {
  test(`from ${from.protocol} to ${to.protocol}`, () => {
    for (const [headers, wanted] of [
      [trace, expected],
      [[], []],
    ] as const) {
      const first = from.pass(message(headers));
      if ("refused" in first) throw new Error(first.refused);
      const second = to.pass(first.message);
      if ("refused" in second) throw new Error(second.refused);
      expect(texts(second.message)).toEqual(wanted);
    }
  });
}

for (const wire of wires) {
  test(`from ${wire.protocol} to HTTP`, () => {
    const passed = wire.pass(message(trace));
    if ("refused" in passed) throw new Error(passed.refused);
    const request = encodeHttp(passed.message, { fixed: {}, nowMs, signer: null });
    if ("refused" in request) throw new Error(request.refused);
    expect(request.headers).toMatchObject(Object.fromEntries(expected));
    const bare = encodeHttp(message([]), { fixed: {}, nowMs, signer: null });
    if ("refused" in bare) throw new Error(bare.refused);
    expect(Object.keys(bare.headers).filter((name) => name.startsWith("trace"))).toEqual([]);
  });
}

test("an event's own trace and the transport's stay apart", () => {
  const own = textHeader(
    "ce_traceparent",
    "00-11111111111111111111111111111111-2222222222222222-00",
  );
  const given = message([...trace, own]);
  const options = { mode: "binary", stream: "s" } as const;
  const kafka = asEvent(given, { ...options, binding: { prefix: "ce_" } });
  expect(texts(kafka)).toEqual(expected);
  expect(kafka.headers).toContainEqual(own);
  // In MQTT both would have one name, which there is the transport's.
  expect(texts(asEvent(given, { ...options, binding: { prefix: "" } }))).toEqual(expected);
  const alone = asEvent(message([own]), { ...options, binding: { prefix: "" } });
  expect(texts(alone).map(([, text]) => text)).toEqual([decodeText(own.value ?? new Uint8Array())]);
});
