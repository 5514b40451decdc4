/**
 * The vectors of `docs/protocol-vectors.json`, which clients in other languages run too: frames
 * both ways, closes, waits, and whole sessions against a server that says what is written there.
 */
import { describe, expect, test } from "bun:test";
import { afterClose, defaultTuning, retryMs, stopCode, toldMs } from "../../src/client/closes.ts";
import { connect } from "../../src/client/client.ts";
import { messageOf, publishText, type ServerFrame } from "../../src/client/frames.ts";
import type { SocketLike } from "../../src/client/platform.ts";
import vectors from "../../docs/protocol-vectors.json";
import { waitFor } from "../temporary.ts";
import { Reader } from "./support.ts";

interface Step {
  readonly client?: Record<string, unknown>;
  readonly server?: Record<string, unknown>;
  readonly close?: number;
  readonly publish?: { stream: string; id: string; body: string };
}

interface Session {
  readonly name: string;
  readonly subscribe?: Record<string, unknown> & { stream: string };
  readonly steps: readonly Step[];
  readonly offsets?: readonly number[];
  readonly gaps?: readonly unknown[];
  readonly receipts?: readonly unknown[];
  readonly error?: string;
}

type Json = Record<string, unknown>;

/** Bytes as the vectors write them. */
function decoded(value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("base64" in value)) return value;
  return Uint8Array.from(Buffer.from(String(value.base64), "base64"));
}

describe("publish frames", () => {
  for (const { name, input, frame } of vectors.publish as unknown as {
    name: string;
    input: Json;
    frame: Json;
  }[]) {
    test(name, () => {
      const { stream, id, headers = {}, ...rest } = input;
      const text = publishText(
        String(stream),
        {
          ...rest,
          ...("body" in rest ? { body: decoded(rest["body"]) } : {}),
          ...("key" in rest ? { key: decoded(rest["key"]) as string } : {}),
          headers: Object.fromEntries(
            Object.entries(headers as Json).map(([each, value]) => [
              each,
              decoded(value) as string,
            ]),
          ),
        },
        String(id),
      );
      expect(JSON.parse(text)).toEqual(frame);
    });
  }
});

describe("message frames", () => {
  for (const { name, frame, message } of vectors.messages as unknown as {
    name: string;
    frame: Json;
    message: Json;
  }[]) {
    test(name, () => {
      const read = messageOf(frame as unknown as ServerFrame);
      expect(read.body).toEqual(decoded(message["body"]) as string);
      expect(read.key).toEqual(decoded(message["key"]) as string);
      const headers = (message["headers"] as [string, unknown][]).map(([each, value]) => [
        each,
        decoded(value),
      ]);
      expect(read.headers).toEqual(headers as [string, string][]);
      expect(read.offset).toBe(Number(frame["offset"]));
    });
  }
});

describe("closes and waits", () => {
  for (const { code, then, error } of vectors.closes) {
    test(`${code}: ${then}`, () => {
      expect<string>(afterClose(code)).toBe(then);
      if (error !== undefined) expect(stopCode(code)).toBe(error);
    });
  }
  for (const { reason, ms } of vectors.reasons) {
    test(`the reason "${reason}" tells ${ms}`, () => expect(toldMs(reason)).toBe(ms));
  }
  for (const { failures, random, ms } of vectors.waits) {
    test(`${failures} failures, chance ${random}: ${ms} ms`, () => {
      expect(retryMs(failures, defaultTuning, random)).toBe(ms);
    });
  }
});

/** The far side of a session: sockets that a script answers. */
class ScriptedServer {
  readonly heard: Json[] = [];
  socket: SocketLike | null = null;

  accept(): SocketLike {
    const socket: SocketLike = {
      onopen: null,
      onmessage: null,
      onclose: null,
      onerror: null,
      send: (text) => this.heard.push(JSON.parse(text) as Json),
      close: () => undefined,
    };
    this.socket = socket;
    queueMicrotask(() => socket.onopen?.());
    return socket;
  }
}

/** Replaces `$NAME` by what the client chose for it, noting it where it is seen first. */
function matches(expected: unknown, actual: unknown, names: Map<string, unknown>): boolean {
  if (typeof expected === "string" && expected.startsWith("$")) {
    if (!names.has(expected)) names.set(expected, actual);
    return names.get(expected) === actual;
  }
  if (typeof expected !== "object" || expected === null) return expected === actual;
  const [wanted, given] = [Object.entries(expected), actual as Json];
  return (
    wanted.length === Object.keys(given).length &&
    wanted.every(([name, value]) => matches(value, given[name], names))
  );
}

function filled(frame: Json, names: Map<string, unknown>): Json {
  return Object.fromEntries(
    Object.entries(frame).map(([name, value]) => [name, names.get(String(value)) ?? value]),
  );
}

async function play(session: Session): Promise<void> {
  const server = new ScriptedServer();
  const client = connect({
    url: "http://scripted",
    token: "t",
    tuning: { minMs: 1, maxMs: 2, restartMs: 2 },
    platform: { socket: () => server.accept() },
  });
  const gaps: unknown[] = [];
  const { stream, ...options } = session.subscribe ?? { stream: "" };
  const onGap = (gap: unknown): void => void gaps.push(gap);
  const reader = stream === "" ? null : new Reader(client.subscribe(stream, { ...options, onGap }));
  const receipts: Promise<unknown>[] = [];
  const names = new Map<string, unknown>();
  let heard = 0;
  for (const step of session.steps) {
    if (step.publish !== undefined) {
      const { stream: to, ...input } = step.publish;
      receipts.push(client.publish(to, input).catch((error: { code: string }) => error.code));
    } else if (step.client !== undefined) {
      const frame = await waitFor(
        `${JSON.stringify(step.client)} is sent`,
        () => server.heard[heard],
      );
      heard++;
      if (!matches(step.client, frame, names)) expect(frame).toEqual(step.client);
    } else if (step.server !== undefined) {
      server.socket?.onmessage?.({ data: JSON.stringify(filled(step.server, names)) });
    } else if (step.close !== undefined) {
      server.socket?.onclose?.({ code: step.close, reason: "" });
    }
  }
  if (session.error !== undefined) expect(client.state.error?.code).toBe(session.error);
  const wanted = session.offsets ?? [];
  await waitFor("the loop has all", () => (reader?.messages.length ?? 0) >= wanted.length);
  if (session.receipts !== undefined) {
    expect(await Promise.all(receipts)).toEqual([...session.receipts]);
  }
  await client.close();
  await reader?.done;
  expect(reader?.messages.map(({ offset }) => offset) ?? []).toEqual([...wanted]);
  expect(gaps).toEqual([...(session.gaps ?? [])]);
  expect(
    server.heard.slice(heard).filter(({ op }) => op !== "unsubscribe" && op !== "ack"),
  ).toEqual([]);
}

describe("sessions", () => {
  for (const session of vectors.sessions as unknown as Session[]) {
    test(session.name, () => play(session));
  }
});
