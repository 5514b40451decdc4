/**
 * An MQTT 5 broker of raw bytes for tests that need to decide which packet comes when: it lets
 * everybody in and sends nothing by itself. Packets are short: lengths are one byte.
 */
import type { Socket, TCPSocketListener } from "bun";
import { freePort, waitFor } from "../../temporary.ts";

const CONNECT = 1;
const PUBREC = 5;
const PUBCOMP = 7;
const SUBSCRIBE = 8;
const PINGREQ = 12;
const DISCONNECT = 14;

interface Connection {
  bytes: Buffer;
}

/** A packet of QoS 2 that the client wrote. */
export interface Answer {
  readonly type: "pubrec" | "pubcomp";
  readonly packetId: number;
}

export class RawBroker implements AsyncDisposable {
  readonly #server: TCPSocketListener<Connection>;
  readonly #answers: Answer[] = [];
  /** The connection that subscribed last. */
  #subscriber: Socket<Connection> | null = null;
  /** Whether the next to connect is told that its session was kept. */
  hasSession = false;
  /** Called when a client says goodbye; it calls `end` when the broker is to end it. */
  onGoodbye: ((end: () => void) => void) | null = null;

  private constructor(server: (broker: () => RawBroker) => TCPSocketListener<Connection>) {
    this.#server = server(() => this);
  }

  static async open(): Promise<RawBroker> {
    const port = await freePort();
    return new RawBroker((broker) =>
      Bun.listen<Connection>({
        hostname: "127.0.0.1",
        port,
        allowHalfOpen: true,
        socket: {
          open: (socket) => {
            socket.data = { bytes: Buffer.alloc(0) };
          },
          data: (socket, bytes) => broker().#read(socket, bytes),
          end: (socket) => {
            if (broker().onGoodbye === null) socket.end();
          },
          close: (socket) => broker().#closed(socket),
        },
      }),
    );
  }

  get url(): string {
    return `mqtt://127.0.0.1:${this.#server.port}`;
  }

  /** Waits until somebody has subscribed. */
  async subscribed(): Promise<void> {
    await waitFor("somebody has subscribed", () => this.#subscriber !== null);
  }

  /** Sends a message of QoS 2 to who subscribed. `alias`: instead of or beside the topic. */
  publish(parts: {
    readonly topic: string;
    readonly body: string;
    readonly packetId: number;
    readonly again?: boolean;
    readonly alias?: number;
  }): void {
    const { topic, body, packetId, again = false, alias } = parts;
    const properties = alias === undefined ? [0] : [3, 0x23, alias >> 8, alias & 0xff];
    this.#write(again ? 0x3c : 0x34, [
      ...word(Buffer.byteLength(topic)),
      ...Buffer.from(topic),
      ...word(packetId),
      ...properties,
      ...Buffer.from(body),
    ]);
  }

  pubrel(packetId: number): void {
    this.#write(0x62, word(packetId));
  }

  /** Waits for the answer to a packet id, and forgets it. */
  async answer(type: Answer["type"], packetId: number): Promise<void> {
    await waitFor(`${type} ${packetId} has come`, () => {
      const at = this.#answers.findIndex((one) => one.type === type && one.packetId === packetId);
      if (at >= 0) this.#answers.splice(at, 1);
      return at >= 0;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop(true);
    return Promise.resolve();
  }

  #closed(socket: Socket<Connection>): void {
    if (this.#subscriber === socket) this.#subscriber = null;
  }

  #write(head: number, rest: readonly number[]): void {
    this.#subscriber?.write(Uint8Array.of(head, rest.length, ...rest));
  }

  #read(socket: Socket<Connection>, bytes: Uint8Array): void {
    let rest = Buffer.concat([socket.data.bytes, bytes]);
    for (;;) {
      const end = 2 + (rest[1] ?? 0);
      if (rest.length < 2 || rest.length < end) break;
      this.#take(socket, rest.subarray(0, end));
      rest = rest.subarray(end);
    }
    socket.data.bytes = rest;
  }

  #take(socket: Socket<Connection>, packet: Buffer): void {
    const type = (packet[0] ?? 0) >> 4;
    if (type === CONNECT) {
      socket.write(Uint8Array.of(0x20, 3, this.hasSession ? 1 : 0, 0, 0));
    } else if (type === SUBSCRIBE) {
      this.#subscriber = socket;
      socket.write(Uint8Array.of(0x90, 4, packet[2] ?? 0, packet[3] ?? 0, 0, 2));
    } else if (type === PINGREQ) {
      socket.write(Uint8Array.of(0xd0, 0));
    } else if (type === DISCONNECT) {
      this.onGoodbye?.(() => socket.end());
    } else if (type === PUBREC || type === PUBCOMP) {
      const packetId = packet.readUInt16BE(2);
      this.#answers.push({ type: type === PUBREC ? "pubrec" : "pubcomp", packetId });
    }
  }
}

function word(value: number): readonly number[] {
  return [value >> 8, value & 0xff];
}
