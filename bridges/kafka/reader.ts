/**
 * kafkajs as this bridge reads with it: silent, its sockets in our hands, and with three of its
 * methods replaced. Everything that depends on its insides is in this file.
 *
 * · Records' headers come as a list. As shipped they become an object, which loses the order
 *   between names, and breaks on names such as `constructor`.
 * · No timer is set for an empty request queue. As shipped it has a negative time and warns.
 * · A consumer that has been stopped asks nobody. As shipped, when it is stopped while the brokers
 *   of its cluster change, new fetchers begin behind the stop, and each asks it without end and
 *   without a turn of the event loop: the process stands still.
 */
import { createRequire } from "node:module";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Consumer, ISocketFactoryArgs, KafkaConfig, SASLOptions } from "kafkajs";
import lz4 from "lz4-napi";
import { assert } from "../../src/assert.ts";
import { nextTurn } from "../../src/clock.ts";
import type { Header } from "../../src/message.ts";
import { type Cluster, CONNECT_MS_MAX, REQUEST_MS_MAX, tlsOptions } from "./clients.ts";

const require = createRequire(import.meta.url);
const kafkajs = require("kafkajs") as typeof import("kafkajs");
const snappy = require("snappyjs") as { uncompress(bytes: Uint8Array): Uint8Array };

/**
 * How long the broker waits for something to read. Short: it is also how long a pause ends late.
 */
const FETCH_WAIT_MS = 200;
const PARTITION_BYTES_MAX = 1024 * 1024;
const FETCH_BYTES_MAX = 8 * 1024 * 1024;
/** A reader that is silent for so long loses its partitions. Milliseconds. */
const SESSION_MS = 10_000;
const HEARTBEAT_MS = 1000;
const REBALANCE_MS_MAX = 15_000;
/** The library's own tries of joining and fetching, with doubled waits. Count; milliseconds. */
const RETRIES = 5;
const RETRY_MS_MIN = 150;
const RETRY_MS_MAX = 2000;
const KEEP_ALIVE_MS = 30_000;

/** The frame that Java's producers put around snappy blocks: magic, two versions of 4 bytes. */
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const XERIAL_HEADER_BYTES = 16;

interface HeaderEntry {
  readonly key: string | null;
  readonly value: Buffer | null;
}

/** A list of headers that answers the library's `reduce` with itself. */
class HeaderList extends Array<HeaderEntry> {
  override reduce(): never {
    return this as never;
  }
}

interface Decoder {
  readVarInt(): number;
  readVarIntArray(read: (decoder: Decoder) => HeaderEntry): HeaderEntry[];
}

interface RequestQueue {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests(this: RequestQueue): void;
}

interface Runner {
  readonly running: boolean;
  /** `stop` never rejects, and resolves once the fetchers have their answers. */
  readonly fetchManager: { stop(): unknown };
  fetch(this: Runner, nodeId: string): Promise<readonly unknown[]>;
}

function replaceMethods(): void {
  const decoder = (require("kafkajs/src/protocol/decoder") as { prototype: Decoder }).prototype;
  assert(typeof decoder.readVarIntArray === "function", "kafkajs reads headers as before");
  decoder.readVarIntArray = function (this: Decoder, read): HeaderEntry[] {
    const count = this.readVarInt();
    const list = new HeaderList();
    for (let index = 0; index < count; index += 1) list.push(read(this));
    return list;
  };
  const { prototype: queue } = require("kafkajs/src/network/requestQueue") as {
    prototype: RequestQueue;
  };
  const schedule: unknown = Reflect.get(queue, "scheduleCheckPendingRequests");
  assert(typeof schedule === "function", "kafkajs schedules requests as before");
  queue.scheduleCheckPendingRequests = function (): void {
    if (this.pending.length > 0) Reflect.apply(schedule, this, []);
  };
  const { prototype: runner } = require("kafkajs/src/consumer/runner") as { prototype: Runner };
  const fetch = Reflect.get(runner, "fetch") as Runner["fetch"] | undefined;
  assert(typeof fetch === "function", "kafkajs fetches as before");
  runner.fetch = async function (nodeId): Promise<readonly unknown[]> {
    if (this.running) return (await Reflect.apply(fetch, this, [nodeId])) as readonly unknown[];
    this.fetchManager.stop();
    await nextTurn();
    return [];
  };
}

function snappyBytes(bytes: Buffer): Buffer {
  if (!bytes.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC)) {
    return Buffer.from(snappy.uncompress(bytes));
  }
  const blocks: Uint8Array[] = [];
  for (let at = XERIAL_HEADER_BYTES; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    blocks.push(snappy.uncompress(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return Buffer.concat(blocks);
}

/** Gzip is built in; this bridge never writes with kafkajs, so nothing compresses here. */
function addCodecs(): void {
  const { CompressionCodecs, CompressionTypes } = kafkajs;
  const reading = (decompress: (bytes: Buffer) => Buffer) => () => ({
    compress: () => Promise.reject(new Error("kafkajs only reads here")),
    decompress: async (bytes: Buffer) => decompress(bytes),
  });
  const codecs = CompressionCodecs as Record<number, unknown>;
  codecs[CompressionTypes.Snappy] = reading(snappyBytes);
  codecs[CompressionTypes.LZ4] = reading((bytes) => lz4.decompressFrameSync(bytes));
  codecs[CompressionTypes.ZSTD] = reading((bytes) => Buffer.from(Bun.zstdDecompressSync(bytes)));
}

replaceMethods();
addCodecs();

/** The headers of a record that kafkajs read, in their order. */
export function headersOf(headers: unknown): readonly Header[] {
  assert(Array.isArray(headers), "kafkajs gives headers as a list");
  return (headers as HeaderEntry[]).map(({ key, value }) => ({ name: key ?? "", value }));
}

/** The sockets of one consumer: the library ends them politely, which a dead line never answers. */
export class Sockets {
  readonly #open = new Set<Socket>();
  #closed: Error | null = null;

  /** What the library calls for a connection. Its retries end once `destroy` was called. */
  connect({ host, port, ssl, onConnect }: ISocketFactoryArgs): Socket {
    if (this.#closed !== null) throw this.#closed;
    // The library passes null for no TLS, which its types do not say.
    const tls = ssl as typeof ssl | null;
    const name = isIP(host) === 0 ? { servername: host } : {};
    const socket =
      tls === null
        ? connectTcp({ host, port }, onConnect)
        : connectTls({ host, port, ...name, ...tls }, onConnect);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setNoDelay(true);
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    return socket;
  }

  /** Breaks every connection for good; requests under way fail. */
  destroy(reason: Error): void {
    this.#closed = reason;
    for (const socket of this.#open) socket.destroy(reason);
  }
}

/** A consumer in a group that commits only what it is told to. Not connected yet. */
export function createConsumer(cluster: Cluster, group: string, sockets: Sockets): Consumer {
  const { sasl, tls } = cluster;
  const retry = {
    retries: RETRIES,
    initialRetryTime: RETRY_MS_MIN,
    maxRetryTime: RETRY_MS_MAX,
    // A consumer that fails is replaced by whoever opened it, with the caller's own patience.
    restartOnFailure: () => Promise.resolve(false),
  };
  const config: KafkaConfig = {
    clientId: cluster.clientId,
    brokers: cluster.brokers.map(({ host, port }) => `${host}:${port}`),
    connectionTimeout: CONNECT_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    retry,
    logLevel: kafkajs.logLevel.NOTHING,
    logCreator: () => () => {},
    socketFactory: (args) => sockets.connect(args),
    ...(tls === null ? {} : { ssl: tlsOptions(tls) }),
    ...(sasl === null ? {} : { sasl: saslOptions(sasl) }),
  };
  return new kafkajs.Kafka(config).consumer({
    groupId: group,
    sessionTimeout: SESSION_MS,
    heartbeatInterval: HEARTBEAT_MS,
    rebalanceTimeout: REBALANCE_MS_MAX,
    maxWaitTimeInMs: FETCH_WAIT_MS,
    maxBytesPerPartition: PARTITION_BYTES_MAX,
    maxBytes: FETCH_BYTES_MAX,
    retry,
  });
}

function saslOptions(sasl: NonNullable<Cluster["sasl"]>): SASLOptions {
  if (sasl.mechanism !== "oauthbearer") return sasl as SASLOptions;
  const oauthBearerProvider = async () => ({ value: await sasl.token() });
  return { mechanism: "oauthbearer", oauthBearerProvider };
}

/** How often a wait within a batch beats, so that the group keeps this reader. Milliseconds. */
export const BATCH_HEARTBEAT_MS = HEARTBEAT_MS;
