/**
 * What the keep-alive takes for an end, and what not. The broker is a fake one, that never gives a
 * client up by itself: how fast the machine is does not matter, only what has been said.
 */
import { afterEach, describe, expect, test } from "bun:test";
import type { Socket, TCPSocketListener } from "bun";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import type { Bridge } from "../../../src/bridge.ts";
import { freePort, waitFor } from "../../temporary.ts";

const CONNECT = 1;
const PUBACK = 4;
const SUBSCRIBE = 8;
const PINGREQ = 12;
const DISCONNECT = 14;
const KEEPALIVE_MS = 1000;
/** A keep-alive is whole seconds, and a busy machine stretches them. */
const testMsMax = 60_000;
const never = new AbortController().signal;

/** One client's connection, as the fake broker sees it. */
interface Peer {
  readonly socket: Socket<Peer>;
  rest: Buffer;
  pings: number;
  isSubscribed: boolean;
  readonly acked: number[];
}

interface Packet {
  readonly type: number;
  readonly payload: Buffer;
}

/** Takes the whole packets off what has come; the rest stays. */
function packetsOf(peer: Peer, bytes: Buffer): Packet[] {
  const packets: Packet[] = [];
  let data = Buffer.concat([peer.rest, bytes]);
  for (;;) {
    const lengthEnd = data.findIndex((byte, index) => index > 0 && byte < 0x80) + 1;
    if (lengthEnd === 0) break;
    const length = data
      .subarray(1, lengthEnd)
      .reduce((sum, byte, index) => sum + ((byte & 0x7f) << (7 * index)), 0);
    if (data.length < lengthEnd + length) break;
    const payload = data.subarray(lengthEnd, lengthEnd + length);
    packets.push({ type: (data[0] ?? 0) >> 4, payload });
    data = data.subarray(lengthEnd + length);
  }
  peer.rest = data;
  return packets;
}

/** A PUBLISH of QoS 1 to the topic "t"; its body has one length byte more than 127 allows. */
function publish(id: number, bodyBytes: number): Uint8Array {
  const length = 6 + bodyBytes;
  const head = [0x32, (length & 0x7f) | 0x80, length >> 7, 0, 1, 0x74, id >> 8, id & 0xff, 0];
  return Buffer.concat([Buffer.from(head), Buffer.alloc(bodyBytes)]);
}

class FakeBroker {
  readonly peers: Peer[] = [];
  /** What a subscriber gets. */
  messages: readonly Uint8Array[] = [];
  /** Called before a ping is answered. */
  onPing: (peer: Peer) => void = () => {};
  #server: TCPSocketListener<Peer> | null = null;

  async listen(): Promise<string> {
    const port = await freePort();
    this.#server = Bun.listen<Peer>({
      hostname: "127.0.0.1",
      port,
      socket: {
        open: (socket) => {
          const rest = Buffer.alloc(0);
          socket.data = { socket, rest, pings: 0, isSubscribed: false, acked: [] };
          this.peers.push(socket.data);
        },
        data: (socket, bytes) => {
          for (const packet of packetsOf(socket.data, bytes)) this.#answer(socket.data, packet);
        },
      },
    });
    return `mqtt://127.0.0.1:${port}`;
  }

  stop(): void {
    this.#server?.stop(true);
  }

  #answer(peer: Peer, { type, payload }: Packet): void {
    if (type === CONNECT) peer.socket.write(Uint8Array.of(0x20, 3, 0, 0, 0));
    if (type === PUBACK) peer.acked.push(payload.readUInt16BE(0));
    if (type === SUBSCRIBE) {
      peer.isSubscribed = true;
      const suback = Uint8Array.of(0x90, 4, payload[0] ?? 0, payload[1] ?? 0, 0, 1);
      peer.socket.write(Buffer.concat([suback, ...this.messages]));
    }
    if (type === PINGREQ) {
      peer.pings += 1;
      this.onPing(peer);
      peer.socket.write(Uint8Array.of(0xd0, 0));
    }
    if (type === DISCONNECT) peer.socket.end();
  }
}

describe("the keep-alive of an mqtt bridge", () => {
  const opened: (() => Promise<void> | void)[] = [];

  afterEach(async () => {
    for (const close of opened.splice(0).reverse()) await close();
  });

  async function fake(): Promise<{ broker: FakeBroker; open: () => Promise<Bridge> }> {
    const broker = new FakeBroker();
    const url = await broker.listen();
    opened.push(() => broker.stop());
    const open = async (): Promise<Bridge> => {
      const config = mqtt.parseConfig({ url, keepalive: KEEPALIVE_MS });
      const bridge = await mqtt.connect(config, {
        name: "plant",
        resolve: (text) => Promise.resolve(text),
        signal: never,
      });
      opened.push(async () => await bridge[Symbol.asyncDispose]());
      return bridge;
    };
    return { broker, open };
  }

  test(
    "lasts while a full source does not read, and what waited is delivered then",
    async () => {
      const { broker, open } = await fake();
      broker.messages = Array.from({ length: 20 }, (_, index) => publish(index + 1, 1500));
      const source = await (await open()).source(mqtt.parseAddress({ topic: "t" }, "source"), {
        name: "reader",
        start: "latest",
        unsettledBytesMax: 2000,
      });
      const first = await source.receive(never);
      const peer = await waitFor("the source has subscribed", () =>
        broker.peers.find(({ isSubscribed }) => isSubscribed),
      );
      // An unread connection would be given up in place of the second ping.
      await waitFor("pings go on", () => peer.pings >= 4);
      expect(first?.messages.length).toBe(1);
      expect(peer.acked).toEqual([]);
      let count = 1;
      for (let delivery = first; delivery !== null; count += delivery?.messages.length ?? 0) {
        await delivery.ack();
        delivery = count < 20 ? await source.receive(never) : null;
      }
      await waitFor("all are acked", () => peer.acked.length === 20);
      expect(peer.acked).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
      await source[Symbol.asyncDispose]();
    },
    testMsMax,
  );

  test(
    "lasts when the process stood still with the answer unread",
    async () => {
      const { broker, open } = await fake();
      broker.onPing = (peer) => {
        if (peer.pings === 1) Bun.sleepSync(KEEPALIVE_MS);
      };
      const bridge = await open();
      let reason: Error | null = null;
      const watching = bridge.closed.then((error) => {
        reason = error;
      });
      await waitFor("pings go on", () => reason !== null || (broker.peers[0]?.pings ?? 0) >= 3);
      expect(reason).toBeNull();
      await bridge[Symbol.asyncDispose]();
      await watching;
    },
    testMsMax,
  );
});
