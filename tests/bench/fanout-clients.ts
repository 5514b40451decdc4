/**
 * The clients of the fan-out bench, in a process of their own: plain TCP that counts frames and
 * looks into none, the same for the gateway and for what it is compared with.
 */
import type { Socket } from "bun";
import { clientFrame } from "../http/socket-client.ts";

/** What the bench asks of the clients. */
export interface OpenCommand {
  readonly port: number;
  readonly path: string;
  readonly count: number;
  /** Frames sent by each, and how many it gets before it counts as ready. */
  readonly hello: readonly object[];
  readonly readyFrames: number;
  /** They read nothing once they are ready. */
  readonly isStuck: boolean;
  /** They pause for so long after each piece that they read. Milliseconds. */
  readonly slowMs?: number;
}
export type Command =
  | ({ readonly op: "open" } & OpenCommand)
  | { readonly op: "await"; readonly frames: number }
  | { readonly op: "close" };

interface Client {
  header: number;
  held: Buffer | null;
  skip: number;
  frames: number;
  readonly command: OpenCommand;
  readonly ready: () => void;
}

/** Opened at a time: a queue of accepts is short. */
const AT_ONCE = 200;
const sockets = new Set<Socket<Client>>();
let frames = 0;
let wanted = Number.POSITIVE_INFINITY;
let reached: (() => void) | null = null;

function counted(socket: Socket<Client>): void {
  const { data } = socket;
  frames++;
  data.frames++;
  if (data.frames === data.command.readyFrames) {
    if (data.command.isStuck) socket.pause();
    data.ready();
  }
  if (frames >= wanted) reached?.();
}

/** Bytes of the frame that begins here, header included; 0: more is needed to know. */
function frameSize(bytes: Buffer, at: number): number {
  if (bytes.length - at < 2) return 0;
  const short = (bytes[at + 1] ?? 0) & 0x7f;
  if (short < 126) return 2 + short;
  if (short === 126) return bytes.length - at < 4 ? 0 : 4 + bytes.readUInt16BE(at + 2);
  return bytes.length - at < 10 ? 0 : 10 + Number(bytes.readBigUInt64BE(at + 2));
}

function received(socket: Socket<Client>, chunk: Buffer): void {
  const client = socket.data;
  let bytes = client.held === null ? chunk : Buffer.concat([client.held, chunk]);
  client.held = null;
  if (client.header === 0) {
    const end = bytes.indexOf("\r\n\r\n");
    if (end < 0) {
      client.held = bytes;
      return;
    }
    client.header = 1;
    for (const frame of client.command.hello) {
      socket.write(clientFrame(Buffer.from(JSON.stringify(frame)), 0x81));
    }
    bytes = bytes.subarray(end + 4);
  }
  const { slowMs = 0 } = client.command;
  if (slowMs > 0) {
    socket.pause();
    setTimeout(() => socket.resume(), slowMs);
  }
  let at = Math.min(client.skip, bytes.length);
  client.skip -= at;
  if (at > 0 && client.skip === 0) counted(socket);
  while (client.skip === 0 && at < bytes.length) {
    const size = frameSize(bytes, at);
    if (size === 0) {
      client.held = Buffer.from(bytes.subarray(at));
      return;
    }
    const here = Math.min(size, bytes.length - at);
    client.skip = size - here;
    at += here;
    if (client.skip === 0) counted(socket);
  }
}

async function openOne(command: OpenCommand): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = await Bun.connect<Client>({
    hostname: "127.0.0.1",
    port: command.port,
    data: { header: 0, held: null, skip: 0, frames: 0, command, ready: resolve },
    socket: {
      data: received,
      close: () => reject(new Error("a client was closed")),
      error: (_, error) => reject(error),
    },
  });
  sockets.add(socket);
  socket.write(
    `GET ${command.path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
  );
  await promise;
}

async function open(command: OpenCommand): Promise<void> {
  for (let opened = 0; opened < command.count; opened += AT_ONCE) {
    const count = Math.min(AT_ONCE, command.count - opened);
    await Promise.all(Array.from({ length: count }, () => openOne(command)));
  }
}

async function run(command: Command): Promise<void> {
  if (command.op === "open") await open(command);
  else if (command.op === "close") {
    for (const socket of sockets) socket.terminate();
    sockets.clear();
    frames = 0;
  } else {
    wanted = command.frames;
    const { promise, resolve } = Promise.withResolvers<void>();
    reached = resolve;
    if (frames >= wanted) resolve();
    await promise;
    wanted = Number.POSITIVE_INFINITY;
    frames = 0;
  }
}

process.on("message", (command: Command) => {
  run(command).then(
    () => process.send?.({ ok: true }),
    (error: unknown) => process.send?.({ ok: false, error: String(error) }),
  );
});
