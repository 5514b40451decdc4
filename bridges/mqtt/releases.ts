/**
 * Which message of QoS 2 a packet id stands for. A broker that got no PUBREC sends a message again
 * under the same packet id, and may give the id to another message only after our PUBCOMP. So the
 * id together with how often it has been released names one message for ever. The name goes into
 * the log with the append; the count goes to disk before the PUBCOMP. Wherever the process dies, a
 * message that comes again has the name under which the log knows it, and another one never has.
 *
 * Counts are kept in records of 2048 ids, since brokers take ids one after another: a tick's
 * releases are one record or two.
 */
import type { SourceMemory } from "../../src/bridge.ts";

/** Packet ids of one record; with two bytes each it fits into the bound of a memory's record. */
const RECORD_IDS = 2048;
/** All packet ids of the protocol. */
const IDS_MAX = 65_536;
const RECORDS = IDS_MAX / RECORD_IDS;
/** Counts go round after so many releases of one id: no log remembers ids for so long. */
const COUNTS = 65_536;
/** The record with the session's name: a made-up part, and the client id that it is of. */
const SESSION = "qos2 session";

/** The packet ids of one session at the broker. */
export class Releases {
  readonly #memory: SourceMemory;
  readonly #clientId: string;
  readonly #counts = new Uint16Array(IDS_MAX);
  /** Names a session at the broker: in another one all packet ids begin anew. */
  #session: string;
  readonly #dirty = new Set<number>();
  #saving: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  private constructor(memory: SourceMemory, clientId: string, session: string) {
    this.#memory = memory;
    this.#clientId = clientId;
    this.#session = session;
  }

  /** What was kept of a client id's session. */
  static async load(memory: SourceMemory, clientId: string): Promise<Releases> {
    const kept = Buffer.from((await memory.load(SESSION)) ?? []).toString("utf8");
    const releases = new Releases(memory, clientId, kept);
    if (!kept.endsWith(` ${clientId}`)) await releases.begin();
    for (let record = 0; record < RECORDS; record += 1) {
      const bytes = await memory.load(recordName(record));
      if (bytes === null) continue;
      const counts = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at + 2 <= bytes.byteLength; at += 2) {
        releases.#counts[record * RECORD_IDS + at / 2] = counts.getUint16(at);
      }
    }
    return releases;
  }

  /**
   * The broker has no session of ours: what it had not finished, it never sends again. Resolves
   * when that is on disk; nothing may be taken from the new session before.
   */
  async begin(): Promise<void> {
    this.#session = `${crypto.randomUUID()} ${this.#clientId}`;
    await this.#memory.save([[SESSION, new Uint8Array(Buffer.from(this.#session))]]);
  }

  /** The name of the message that has the packet id now. */
  nameOf(packetId: number): string {
    return `${this.#session}/${packetId}/${this.#counts[packetId] ?? 0}`;
  }

  /**
   * The broker has released the id; resolves when that is on disk and PUBCOMP may be sent. Releases
   * that come during a save share the next one.
   */
  async release(packetId: number): Promise<void> {
    this.#counts[packetId] = ((this.#counts[packetId] ?? 0) + 1) % COUNTS;
    this.#dirty.add(Math.floor(packetId / RECORD_IDS));
    if (this.#saving === null) {
      this.#saving = this.#save();
      return await this.#saving;
    }
    this.#next ??= this.#afterwards(this.#saving);
    await this.#next;
  }

  async #afterwards(saving: Promise<void>): Promise<void> {
    // Its failure is told to those who wait for it.
    await Promise.allSettled([saving]);
    this.#next = null;
    this.#saving = this.#save();
    await this.#saving;
  }

  async #save(): Promise<void> {
    const records = [...this.#dirty];
    this.#dirty.clear();
    try {
      await this.#memory.save(
        records.map((record) => [recordName(record), this.#bytesOf(record)] as const),
      );
    } finally {
      if (this.#next === null) this.#saving = null;
    }
  }

  #bytesOf(record: number): Uint8Array {
    const bytes = new Uint8Array(RECORD_IDS * 2);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < RECORD_IDS; at += 1) {
      view.setUint16(at * 2, this.#counts[record * RECORD_IDS + at] ?? 0);
    }
    return bytes;
  }
}

function recordName(record: number): string {
  return `qos2 ids from ${record * RECORD_IDS}`;
}
