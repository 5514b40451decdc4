/**
 * The wire as bytes: frames as a client sends them, or as none should, and a connection over plain
 * TCP that keeps every frame that comes.
 */
import { connect, type Socket } from "node:net";
import { ADMIN_TOKEN } from "./support.ts";
import { waitFor } from "../temporary.ts";

export const OP = { more: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface FrameOptions {
  readonly fin?: boolean;
  readonly rsv?: number;
  readonly masked?: boolean;
  readonly mask?: readonly number[];
  /** Bytes of the length field beyond the first: 0, 2 or 8; the shortest when missing. */
  readonly lengthBytes?: 0 | 2 | 8;
}

/** One frame as a client sends it, or as none should. */
export function frame(
  opcode: number,
  payload: string | Buffer = "",
  options: FrameOptions = {},
): Buffer {
  const { fin = true, rsv = 0, masked = true, mask = [0x37, 0xfa, 0x21, 0x3d] } = options;
  const bytes = Buffer.from(payload);
  const shortest = bytes.length < 126 ? 0 : bytes.length < 65_536 ? 2 : 8;
  const { lengthBytes = shortest } = options;
  const length = Buffer.alloc(1 + lengthBytes);
  length[0] =
    (masked ? 0x80 : 0) | (lengthBytes === 0 ? bytes.length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) length.writeUInt16BE(bytes.length, 1);
  if (lengthBytes === 8) length.writeBigUInt64BE(BigInt(bytes.length), 1);
  const first = Buffer.from([(fin ? 0x80 : 0) | (rsv << 4) | opcode]);
  if (!masked) return Buffer.concat([first, length, bytes]);
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = (bytes[index] ?? 0) ^ (mask[index % 4] ?? 0);
  return Buffer.concat([first, length, Buffer.from(mask), bytes]);
}

export function closeFrame(code: number, reason: string | Buffer = ""): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return frame(OP.close, Buffer.concat([head, Buffer.from(reason)]));
}

/** A text of so many bytes that is a ping of ours, so that a pong frame answers it. */
export function pingText(bytes: number): string {
  const shortest = '{"op":"ping"}';
  return shortest + " ".repeat(bytes - shortest.length);
}

export interface Received {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** A connection that has been upgraded, and every frame that came on it. */
export class Wire implements Disposable {
  readonly frames: Received[] = [];
  readonly #socket: Socket;
  #buffer = Buffer.alloc(0);
  #isUpgraded = false;
  isClosed = false;

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (bytes: Buffer) => this.#take(bytes));
    this.#socket.on("close", () => (this.isClosed = true));
    this.#socket.on("error", () => (this.isClosed = true));
    this.#socket.write(
      "GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
        "Sec-WebSocket-Protocol: isthmus.v1.json\r\n\r\n",
    );
  }

  static async open(port: number): Promise<Wire> {
    const wire = new Wire(port);
    await waitFor("it is upgraded", () => wire.#isUpgraded);
    wire.write(frame(OP.text, JSON.stringify({ op: "auth", token: ADMIN_TOKEN })));
    await waitFor("the server has said welcome", () => wire.frames.length === 1);
    wire.frames.length = 0;
    return wire;
  }

  write(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** In several writes, each on the wire before the next. */
  async writeSlowly(bytes: Buffer, step: number): Promise<void> {
    for (let at = 0; at < bytes.length; at += step) {
      await new Promise<void>((resolve) => {
        this.#socket.write(bytes.subarray(at, at + step), () => resolve());
      });
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  /** The code of the close frame that came: null for none, 1005 for one without a code. */
  get closeCode(): number | null {
    const close = this.frames.find(({ opcode }) => opcode === OP.close);
    if (close === undefined) return null;
    return close.payload.length >= 2 ? close.payload.readUInt16BE(0) : 1005;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(bytes: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    if (!this.#isUpgraded) {
      const end = this.#buffer.indexOf("\r\n\r\n");
      if (end === -1) return;
      this.#isUpgraded = true;
      this.#buffer = this.#buffer.subarray(end + 4);
    }
    for (let size = this.#one(); size > 0; size = this.#one()) {
      this.#buffer = this.#buffer.subarray(size);
    }
  }

  #one(): number {
    const buffer = this.#buffer;
    if (buffer.length < 2) return 0;
    const short = buffer.readUInt8(1);
    if (short >= 0x80) throw new Error("a server does not mask");
    const header = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (buffer.length < header) return 0;
    const length =
      short === 126
        ? buffer.readUInt16BE(2)
        : short === 127
          ? Number(buffer.readBigUInt64BE(2))
          : short;
    if (buffer.length < header + length) return 0;
    const payload = Buffer.from(buffer.subarray(header, header + length));
    this.frames.push({ opcode: buffer.readUInt8(0) & 0x0f, payload });
    return header + length;
  }
}
