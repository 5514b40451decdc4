/**
 * Clients of the socket for tests: one on the runtime's WebSocket, and one on plain TCP that can
 * stop reading, which no WebSocket API offers.
 */
import { connect, type Socket } from "node:net";
import { waitFor } from "../temporary.ts";
import { ADMIN_TOKEN } from "./support.ts";

/** A frame from the server. */
export interface ServerFrame {
  readonly op: string;
  readonly [member: string]: unknown;
}

/** A connection that keeps every frame it gets. */
export class TestSocket implements Disposable {
  readonly frames: ServerFrame[] = [];
  readonly #socket: WebSocket;
  readonly #opened = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<{ code: number; reason: string }>();
  #taken = 0;

  constructor(url: string, protocols: readonly string[] = ["isthmus.v1.json"]) {
    this.#socket = new WebSocket(`${url.replace("http", "ws")}/socket`, [...protocols]);
    this.#socket.onopen = () => this.#opened.resolve();
    this.#socket.onmessage = ({ data }) => {
      this.frames.push(JSON.parse(String(data)) as ServerFrame);
    };
    this.#socket.onclose = ({ code, reason }) => {
      this.#opened.resolve();
      this.#closed.resolve({ code, reason });
    };
  }

  /** A connection whose caller is known. */
  static async open(url: string, token = ADMIN_TOKEN): Promise<TestSocket> {
    const socket = new TestSocket(url);
    await socket.send({ op: "auth", token });
    await socket.take("welcome");
    return socket;
  }

  get protocol(): string {
    return this.#socket.protocol;
  }

  /** The close code, once it has closed. */
  get closed(): Promise<{ code: number; reason: string }> {
    return this.#closed.promise;
  }

  /** Sends a frame, or text as it is, once the connection is open. */
  async send(frame: object | string): Promise<void> {
    await this.#opened.promise;
    this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  async sendBytes(bytes: Uint8Array): Promise<void> {
    await this.#opened.promise;
    this.#socket.send(bytes);
  }

  /** The next frame, which must be of this kind. */
  async take(op: string): Promise<ServerFrame> {
    const frame = await waitFor(`a ${op} frame has come`, () => this.frames[this.#taken] ?? null);
    this.#taken++;
    if (frame.op !== op) throw new Error(`expected ${op}, got ${JSON.stringify(frame)}`);
    return frame;
  }

  /** The next so many frames of one kind. */
  async takeMany(op: string, count: number): Promise<ServerFrame[]> {
    const frames: ServerFrame[] = [];
    for (let index = 0; index < count; index++) frames.push(await this.take(op));
    return frames;
  }

  /** Sees that nothing else has come: the answer to a ping is the very next frame. */
  async nothingElse(): Promise<void> {
    await this.send({ op: "ping" });
    await this.take("pong");
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** A client on plain TCP: it can stop reading, and send what no library would. */
export class RawSocket implements Disposable {
  readonly texts: string[] = [];
  readonly #socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #isUpgraded = false;
  isClosed = false;
  closeCode: number | null = null;

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.on("data", (bytes: Buffer) => this.#received(bytes));
    this.#socket.on("close", () => {
      this.isClosed = true;
    });
    this.#socket.on("error", () => {
      this.isClosed = true;
    });
    this.#socket.write(
      "GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
        "Sec-WebSocket-Protocol: isthmus.v1.json\r\n\r\n",
    );
  }

  /** Sends a text frame, masked as clients must. */
  send(frame: object): void {
    this.#socket.write(clientFrame(Buffer.from(JSON.stringify(frame)), 0x81));
  }

  /** Sends bytes as they are. */
  sendRaw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #received(bytes: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    if (!this.#isUpgraded) {
      const end = this.#buffer.indexOf("\r\n\r\n");
      if (end === -1) return;
      this.#isUpgraded = true;
      this.#buffer = this.#buffer.subarray(end + 4);
    }
    for (let size = this.#frame(); size > 0; size = this.#frame()) {
      this.#buffer = this.#buffer.subarray(size);
    }
  }

  /** Takes one frame off the front; its size, or 0 when it is not all there. */
  #frame(): number {
    const buffer = this.#buffer;
    if (buffer.length < 2) return 0;
    const short = buffer.readUInt8(1) & 0x7f;
    const header = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (buffer.length < header) return 0;
    const length =
      short === 126
        ? buffer.readUInt16BE(2)
        : short === 127
          ? Number(buffer.readBigUInt64BE(2))
          : short;
    if (buffer.length < header + length) return 0;
    const opcode = buffer.readUInt8(0) & 0x0f;
    if (opcode === 1) this.texts.push(buffer.toString("utf8", header, header + length));
    if (opcode === 8 && length >= 2) this.closeCode = buffer.readUInt16BE(header);
    return header + length;
  }
}

/** A masked frame. */
export function clientFrame(payload: Buffer, first: number): Buffer {
  const mask = Buffer.from([1, 2, 3, 4]);
  const masked = Buffer.from(payload.map((byte, index) => byte ^ (mask[index % 4] ?? 0)));
  const length =
    payload.length < 126
      ? Buffer.from([0x80 | payload.length])
      : Buffer.from([0x80 | 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([Buffer.from([first]), length, mask, masked]);
}
