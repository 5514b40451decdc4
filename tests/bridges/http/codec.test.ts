/** The HTTP codec: which headers a message may send, and which refuse it. */
import { describe, expect, test } from "bun:test";
import { encodeMessage, type RequestHeaders } from "../../../bridges/http/codec.ts";
import { retryAfterMs } from "../../../bridges/http/request.ts";
import { encodeText, type Header, type Message } from "../../../src/message.ts";

const nowMs = 1_700_000_000_999;

function message(parts: Partial<Message> = {}): Message {
  return {
    id: "msg_1",
    key: null,
    properties: {},
    headers: [],
    body: encodeText("{}"),
    timestampMs: 0,
    origin: null,
    ...parts,
  };
}

function header(name: string, value: string | Uint8Array | null): Header {
  return { name, value: typeof value === "string" ? encodeText(value) : value };
}

function headersOf(parts: Partial<Message>, fixed: Record<string, string> = {}): RequestHeaders {
  const request = encodeMessage(message(parts), { fixed, nowMs, signer: null });
  if ("refused" in request) throw new Error(request.refused);
  return { ...request.headers };
}

function refusal(parts: Partial<Message>): string {
  const request = encodeMessage(message(parts), { fixed: {}, nowMs, signer: null });
  return "refused" in request ? request.refused : "taken";
}

describe("a message as a webhook request", () => {
  test("has its id, the time of the attempt, its type and encoding", () => {
    const properties = { contentType: "application/json", contentEncoding: "gzip" };
    expect(headersOf({ properties })).toEqual({
      "accept-encoding": "identity",
      "content-type": "application/json",
      "content-encoding": "gzip",
      "user-agent": "isthmus",
      "webhook-id": "msg_1",
      "webhook-timestamp": "1700000000",
    });
  });

  test("has the message's headers in lower case, repeated ones as often, bytes as they are", () => {
    const headers = headersOf({
      headers: [header("X-A", "1"), header("x-a", "2"), header("b", "ü"), header("n", null)],
    });
    expect(headers["x-a"]).toEqual(["1", "2"]);
    expect(headers["b"]).toBe(Buffer.from("ü").toString("latin1"));
    expect(headers["n"]).toBe("");
  });

  test("never takes over the connection, the credentials or what the bridge says", () => {
    const names = [
      "Host",
      "Content-Length",
      "Transfer-Encoding",
      "Connection",
      "Authorization",
      "Cookie",
      "Webhook-Id",
      "Content-Type",
      "Upgrade",
      "TE",
    ];
    const headers = headersOf({ headers: names.map((name) => header(name, "evil")) });
    expect(Object.values(headers)).not.toContain("evil");
  });

  test("gives way to the headers of the bridge and the address", () => {
    const headers = headersOf(
      { headers: [header("x-a", "message")] },
      { "x-a": "bridge", authorization: "Bearer t" },
    );
    expect(headers).toMatchObject({ "x-a": "bridge", authorization: "Bearer t" });
  });

  test("says that a body is a tombstone", () => {
    expect(headersOf({ body: null })["isthmus-tombstone"]).toBe("true");
    expect(headersOf({ body: new Uint8Array(0) })["isthmus-tombstone"]).toBeUndefined();
  });

  test("is refused for a header that can't be in HTTP, naming it", () => {
    expect(refusal({ headers: [header("a b", "1")] })).toContain('"a b"');
    expect(refusal({ headers: [header("", "1")] })).toContain('""');
    expect(refusal({ headers: [header("käse", "1")] })).toContain("käse");
    for (const value of ["a\r\nb: c", "a\nb", "a\0b", "\u007f"]) {
      expect(refusal({ headers: [header("x-a", value)] })).toContain('"x-a"');
    }
    expect(refusal({ properties: { contentType: "a\r\nx: y" } })).toContain("content-type");
    expect(refusal({ id: "a\nb" })).toContain("webhook-id");
    expect(refusal({ headers: [header("big", new Uint8Array(70_000).fill(65))] })).toContain(
      "the headers take",
    );
  });
});

describe("Retry-After", () => {
  test("is seconds or a date, never negative and at most a day", () => {
    expect(retryAfterMs("120", nowMs)).toBe(120_000);
    expect(retryAfterMs(new Date(nowMs + 5001).toUTCString(), nowMs)).toBeGreaterThan(3000);
    expect(retryAfterMs("Wed, 21 Oct 2015 07:28:00 GMT", nowMs)).toBe(0);
    expect(retryAfterMs("999999999", nowMs)).toBe(86_400_000);
    expect(retryAfterMs("soon", nowMs)).toBeNull();
    expect(retryAfterMs(undefined, nowMs)).toBeNull();
  });
});
