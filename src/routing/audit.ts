/**
 * The audit: each change that a person or a program makes by administration, as one message in the
 * internal stream `$audit`, which is only added to. The definitions' revisions say what changed;
 * here stands who did what and when, also what leaves no revision: pauses, seeks, redrives, tokens.
 */
import type { Clock } from "../clock.ts";
import { errorText } from "../errors.ts";
import { AUDIT_STREAM } from "../log/retention.ts";
import type { Stream, Streams } from "../log/stream.ts";
import { encodeText } from "../message.ts";

/** One change. */
export interface AuditEntry {
  /** Who: `token:NAME`, `settings`, or a client's subject. */
  readonly by: string;
  /** What was done: `created`, `changed`, `deleted`, `paused`, `seek`, `retry` … */
  readonly action: string;
  /** The kind of thing (`rules`, `routes`, `tokens` …), and its name. */
  readonly kind: string;
  readonly name: string;
  /** Of definitions: the revision that stands now. */
  readonly revision?: number;
  /** Why, as they said. */
  readonly why?: string;
  /** What else there is to know, without secrets. */
  readonly detail?: string;
}

/** The audit of a process. */
export class Audit {
  readonly #stream: Stream;
  readonly #clock: Clock;
  readonly #warn: (sentence: string) => void;

  constructor(streams: Streams, clock: Clock, warn: (sentence: string) => void) {
    this.#stream = streams.stream(AUDIT_STREAM);
    this.#clock = clock;
    this.#warn = warn;
  }

  /**
   * Resolves when the entries are on disk. The change has been made: what can't be kept here is
   * told to the operator's log and fails nothing.
   */
  async note(entries: readonly AuditEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const timestampMs = this.#clock.nowMs();
    const at = new Date(timestampMs).toISOString();
    const messages = entries.map((entry, index) => ({
      id: `audit-${timestampMs}-${this.#end + index}`,
      key: encodeText(`${entry.kind}/${entry.name}`),
      properties: { contentType: "application/json", type: "isthmus.audit" },
      headers: [],
      body: encodeText(JSON.stringify({ at, ...entry })),
      timestampMs,
      origin: null,
    }));
    try {
      await this.#stream.append(messages).durable;
    } catch (error) {
      const what = entries.map(({ by, action, kind, name }) => `${by} ${action} ${kind}/${name}`);
      this.#warn(`the audit could not be kept (${errorText(error)}): ${what.join(", ")}`);
    }
  }

  get #end(): number {
    return this.#stream.partitions[0]?.offsetEnd ?? 0;
  }
}
