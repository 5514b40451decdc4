/**
 * What RFC 6455 asks of a server, case by case over plain TCP, in the shape of Autobahn's groups
 * 1 to 7: each case sends bytes and names what has to come back. A text frame that is no JSON is
 * answered with an `error` frame, which shows that it has come through whole.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  closeFrame,
  frame,
  type FrameOptions,
  OP,
  pingText,
  type Received,
  Wire,
} from "./raw-wire.ts";
import { type TestServer, testServer } from "./support.ts";
import { waitFor } from "../temporary.ts";

interface Case {
  readonly name: string;
  readonly send: Buffer | readonly Buffer[];
  /** Bytes of each write; all in one when missing. */
  readonly step?: number;
  /** `op:…` of our own frames, `pong:…` with its payload, in the order in which they come. */
  readonly expect?: readonly string[];
  /** The connection goes on, or fails: with the code if the server says one before it ends. */
  readonly fails?: number;
  /** The connection ends with this very code echoed. */
  readonly closes?: number;
}

let server: TestServer;
beforeAll(async () => {
  server = await testServer();
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
});

/** What came, in words. */
function toldOf({ opcode, payload }: Received): string {
  if (opcode === OP.text) return `op:${(JSON.parse(payload.toString()) as { op: string }).op}`;
  if (opcode === OP.pong) return `pong:${payload.toString("latin1")}`;
  return opcode === OP.close ? "close" : `opcode:${opcode}`;
}

async function run({ send, step, expect: expected = [], fails, closes }: Case): Promise<void> {
  using wire = await Wire.open(server.port);
  const bytes = Array.isArray(send) ? Buffer.concat(send as Buffer[]) : (send as Buffer);
  if (step === undefined) wire.write(bytes);
  else await wire.writeSlowly(bytes, step);
  if (fails === undefined && closes === undefined) {
    // Whatever came before has been handled once this has its answer.
    wire.write(frame(OP.ping, "end of case"));
    const last = "pong:end of case";
    await waitFor("the case has ended", () => wire.frames.some((each) => toldOf(each) === last));
    await waitFor("all answers came", () => wire.frames.length > expected.length);
    expect(wire.frames.map(toldOf).filter((each) => each !== last)).toEqual([...expected]);
    expect(wire.isClosed).toBe(false);
    return;
  }
  await waitFor("the connection has ended", () => wire.isClosed);
  expect(wire.frames.map(toldOf).filter((each) => each !== "close")).toEqual([...expected]);
  if (closes !== undefined) expect(wire.closeCode).toBe(closes);
  // RFC 6455 7.1.7: an endpoint that fails a connection should say why, and need not.
  else expect([null, fails ?? null]).toContain(wire.closeCode);
}

const text = (payload: string | Buffer, options?: FrameOptions) => frame(OP.text, payload, options);
const more = (payload: string | Buffer, fin: boolean) => frame(OP.more, payload, { fin });
const start = (payload: string | Buffer) => text(payload, { fin: false });
const PING = '{"op":"ping"}';
const accents = Buffer.from('{"op":"ping","κόσμε𝄞":1}');

function table(title: string, cases: readonly Case[]): void {
  describe(title, () => {
    for (const each of cases) test(each.name, () => run(each));
  });
}

table(
  "1 sizes at each form of the length",
  [13, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 1_048_576].flatMap((size) => [
    { name: `text of ${size} bytes`, send: text(pingText(size)), expect: ["op:pong"] },
    {
      name: `binary of ${size} bytes`,
      send: frame(OP.binary, pingText(size)),
      expect: ["op:error"],
    },
  ]),
);

table("1 sizes in other ways", [
  { name: "an empty text", send: text(""), expect: ["op:error"] },
  { name: "an empty binary", send: frame(OP.binary), expect: ["op:error"] },
  { name: "a text in pieces of 1 byte", send: text(pingText(200)), step: 1, expect: ["op:pong"] },
  {
    name: "64 KiB in pieces of 997 bytes",
    send: text(pingText(65_536)),
    step: 997,
    expect: ["op:pong"],
  },
  {
    name: "three texts in one write",
    send: [text(PING), text(PING), text(PING)],
    expect: ["op:pong", "op:pong", "op:pong"],
  },
  { name: "a mask of zeros", send: text(PING, { mask: [0, 0, 0, 0] }), expect: ["op:pong"] },
  { name: "a mask of ones", send: text(PING, { mask: [255, 255, 255, 255] }), expect: ["op:pong"] },
  {
    name: "a length beyond every bound",
    send: Buffer.from([0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]),
    fails: 1009,
  },
  {
    name: "a length with its highest bit set",
    send: Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5]),
    // Read as a length it is beyond every bound, which ends the connection just as well.
    fails: 1009,
  },
]);

table("2 pings and pongs", [
  { name: "a ping without a payload", send: frame(OP.ping), expect: ["pong:"] },
  { name: "a ping with text", send: frame(OP.ping, "hello"), expect: ["pong:hello"] },
  {
    name: "a ping with bytes",
    send: frame(OP.ping, Buffer.from([0, 255, 254, 253])),
    expect: ["pong:\u0000\u00ff\u00fe\u00fd"],
  },
  {
    name: "a ping of 125 bytes",
    send: frame(OP.ping, "p".repeat(125)),
    expect: [`pong:${"p".repeat(125)}`],
  },
  { name: "a ping of 126 bytes", send: frame(OP.ping, "p".repeat(126)), fails: 1002 },
  {
    name: "a ping of 125 bytes, byte by byte",
    send: frame(OP.ping, "p".repeat(125)),
    step: 1,
    expect: [`pong:${"p".repeat(125)}`],
  },
  { name: "a pong that nobody asked for", send: frame(OP.pong), expect: [] },
  { name: "a pong with a payload", send: frame(OP.pong, "unasked"), expect: [] },
  {
    name: "a pong, then a ping",
    send: [frame(OP.pong, "a"), frame(OP.ping, "b")],
    expect: ["pong:b"],
  },
  {
    name: "ten pings in one write",
    send: Array.from({ length: 10 }, (_, n) => frame(OP.ping, String(n))),
    expect: Array.from({ length: 10 }, (_, n) => `pong:${n}`),
  },
  {
    name: "ten pings, byte by byte",
    send: Array.from({ length: 10 }, (_, n) => frame(OP.ping, String(n))),
    step: 1,
    expect: Array.from({ length: 10 }, (_, n) => `pong:${n}`),
  },
]);

table(
  "3 reserved bits",
  [1, 2, 3, 4, 5, 6, 7].flatMap((rsv) => [
    { name: `text with bits ${rsv}`, send: text(PING, { rsv }), fails: 1002 },
    { name: `ping with bits ${rsv}`, send: frame(OP.ping, "x", { rsv }), fails: 1002 },
  ]),
);

table(
  "4 reserved opcodes",
  [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => ({
    name: `opcode ${opcode}, after a text`,
    send: [text(PING), frame(opcode, "x")],
    expect: ["op:pong"],
    fails: 1002,
  })),
);

table("5 fragments", [
  { name: "a text of two", send: [start('{"op":'), more('"ping"}', true)], expect: ["op:pong"] },
  {
    name: "a text of two, byte by byte",
    send: [start('{"op":'), more('"ping"}', true)],
    step: 1,
    expect: ["op:pong"],
  },
  {
    name: "a text of as many as it has bytes",
    send: [
      ...PING.split("").map((char, n) => (n === 0 ? start(char) : more(char, false))),
      more("", true),
    ],
    expect: ["op:pong"],
  },
  {
    name: "empty fragments around a text",
    send: [start(""), more(PING, false), more("", true)],
    expect: ["op:pong"],
  },
  {
    name: "a text of empty fragments",
    send: [start(""), more("", false), more("", true)],
    expect: ["op:error"],
  },
  {
    name: "a binary of two",
    send: [frame(OP.binary, "a", { fin: false }), more("b", true)],
    expect: ["op:error"],
  },
  {
    name: "a ping inside a text",
    send: [start('{"op":'), frame(OP.ping, "in"), more('"ping"}', true)],
    expect: ["pong:in", "op:pong"],
  },
  {
    name: "a pong inside a text",
    send: [start('{"op":'), frame(OP.pong, "in"), more('"ping"}', true)],
    expect: ["op:pong"],
  },
  {
    name: "five pings inside a text, byte by byte",
    send: [
      start('{"op":'),
      ...["1", "2", "3", "4", "5"].map((n) => frame(OP.ping, n)),
      more('"ping"}', true),
    ],
    step: 1,
    expect: ["pong:1", "pong:2", "pong:3", "pong:4", "pong:5", "op:pong"],
  },
  {
    name: "a ping in two fragments",
    send: [frame(OP.ping, "a", { fin: false }), more("b", true)],
    fails: 1002,
  },
  {
    name: "a pong in two fragments",
    send: [frame(OP.pong, "a", { fin: false }), more("b", true)],
    fails: 1002,
  },
  {
    name: "a close in two fragments",
    send: [frame(OP.close, "", { fin: false }), more("", true)],
    fails: 1002,
  },
  { name: "a continuation of nothing", send: more("x", true), fails: 1002 },
  { name: "an open continuation of nothing", send: more("x", false), fails: 1002 },
  {
    name: "a continuation after a whole text",
    send: [text(PING), more("x", true)],
    expect: ["op:pong"],
    fails: 1002,
  },
  { name: "a text inside a text", send: [start('{"op":'), text('"ping"}')], fails: 1002 },
  { name: "a binary inside a text", send: [start('{"op":'), frame(OP.binary, "x")], fails: 1002 },
  {
    name: "two texts of two, one after the other",
    send: [start('{"op":'), more('"ping"}', true), start("{"), more('"op":"ping"}', true)],
    expect: ["op:pong", "op:pong"],
  },
  {
    name: "1 MiB in fragments of 64 KiB",
    send: Array.from({ length: 16 }, (_, n) => {
      const part = pingText(1_048_576).slice(n * 65_536, (n + 1) * 65_536);
      return n === 0 ? start(part) : more(part, n === 15);
    }),
    expect: ["op:pong"],
  },
]);

table(
  "6 UTF-8, whole, at each cut",
  Array.from({ length: accents.length - 1 }, (_, index) => index + 1).map((cut) => ({
    name: `cut into fragments behind byte ${cut}`,
    send: [start(accents.subarray(0, cut)), more(accents.subarray(cut), true)],
    expect: ["op:error"],
  })),
);

const broken: readonly (readonly [name: string, bytes: readonly number[]])[] = [
  ["a lone continuation byte", [0x80]],
  ["a lone first byte", [0xc3]],
  ["two of three bytes", [0xe2, 0x82]],
  ["three of four bytes", [0xf0, 0x9d, 0x84]],
  ["an overlong slash of two bytes", [0xc0, 0xaf]],
  ["an overlong slash of three bytes", [0xe0, 0x80, 0xaf]],
  ["an overlong slash of four bytes", [0xf0, 0x80, 0x80, 0xaf]],
  ["half of a surrogate pair", [0xed, 0xa0, 0x80]],
  ["both halves of a surrogate pair", [0xed, 0xa0, 0x80, 0xed, 0xb0, 0x80]],
  ["beyond U+10FFFF", [0xf4, 0x90, 0x80, 0x80]],
  ["a sequence of five bytes", [0xf8, 0x88, 0x80, 0x80, 0x80]],
  ["the byte FE", [0xfe]],
  ["the byte FF", [0xff]],
];

table(
  "6 UTF-8, broken",
  broken.flatMap(([name, bytes]) => {
    const whole = Buffer.concat([Buffer.from('{"op":"'), Buffer.from(bytes), Buffer.from('"}')]);
    return [
      { name, send: text(whole), fails: 1007 },
      {
        name: `${name}, in fragments`,
        send: [start(whole.subarray(0, 8)), more(whole.subarray(8), true)],
        fails: 1007,
      },
    ];
  }),
);

table("7 closing", [
  { name: "without a code", send: frame(OP.close), closes: 1005 },
  { name: "a payload of one byte", send: frame(OP.close, "x"), fails: 1002 },
  { name: "with a reason", send: closeFrame(1000, "bye"), closes: 1000 },
  { name: "with a reason of 123 bytes", send: closeFrame(1000, "r".repeat(123)), closes: 1000 },
  { name: "with a reason of 124 bytes", send: closeFrame(1000, "r".repeat(124)), fails: 1002 },
  {
    name: "with a reason that is no UTF-8",
    send: closeFrame(1000, Buffer.from([0xce, 0xba, 0xe1, 0xbd])),
    fails: 1007,
  },
  {
    name: "a text, then a close",
    send: [text(PING), closeFrame(1000)],
    expect: ["op:pong"],
    closes: 1000,
  },
  { name: "a close, then a ping", send: [closeFrame(1000), frame(OP.ping, "late")], closes: 1000 },
  { name: "a close, then a text", send: [closeFrame(1000), text(PING)], closes: 1000 },
  { name: "two closes", send: [closeFrame(1000), closeFrame(1001)], closes: 1000 },
  { name: "a close inside a text", send: [start('{"op":'), closeFrame(1000)], closes: 1000 },
  ...[1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999].map((code) => ({
    name: `with the code ${code}`,
    send: closeFrame(code),
    closes: code,
  })),
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535].map((code) => ({
    name: `with the code ${code}, which nobody may send`,
    send: closeFrame(code),
    fails: 1002,
  })),
]);

table("masks", [
  { name: "an unmasked text", send: text(PING, { masked: false }), fails: 1002 },
  { name: "an unmasked ping", send: frame(OP.ping, "x", { masked: false }), fails: 1002 },
  { name: "an unmasked close", send: frame(OP.close, "", { masked: false }), fails: 1002 },
]);
