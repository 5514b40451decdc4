/**
 * The port: all that the gateway knows of an outside system. A bridge is one folder under
 * `bridges/`, one line in `bridges/registry.ts` and one test file that calls the conformance suite.
 * A bridge imports this file, `message.ts`, `errors.ts` and `clock.ts`, and nothing else of `src`.
 */
import type { Message, Properties } from "./message.ts";

/**
 * What a kind of bridge can do: read by the program itself, and held to by the conformance suite.
 */
export interface Capabilities {
  /**
   * `partition`: order within a partition of the source; `address`: within the address; or none.
   */
  readonly order: "partition" | "address" | "none";
  /** The source can be read again from a position that it once had. */
  readonly replay: boolean;
  /**
   * `bytes`: ordered, repeatable, binary; `text`: ordered, repeatable text; `table`: unique names.
   */
  readonly headers: "bytes" | "text" | "table" | "none";
  /** Carries a message's key. */
  readonly key: boolean;
  /** A null body arrives as a null body. */
  readonly tombstones: boolean;
  /** The broker delivers a nacked message again. */
  readonly redeliverOnNack: boolean;
  /** Several sources of one group share the messages. */
  readonly sharedGroups: boolean;
  /**
   * `prefix`: when one message fails all later ones of the call fail; `independent`: each by
   * itself.
   */
  readonly failure: "prefix" | "independent";
  /** The sink keeps `Outgoing.lane`; for sinks whose failures are independent. */
  readonly lanes?: true;
  /** What the kind can't do at all. */
  readonly source: boolean;
  readonly sink: boolean;
}

/** What `connect` is given beside the parsed configuration. */
export interface ConnectContext {
  /** The bridge's own name, for client ids and messages. */
  readonly name: string;
  /**
   * Resolves `${env:}`, `${file:}` and `${secret:}` in a text; throws InvalidError when it can't.
   */
  readonly resolve: (text: string) => Promise<string>;
  readonly signal: AbortSignal;
}

/** A part of a message that a protocol has a place for, or has not. */
export type MappedField =
  | keyof Properties
  | "address"
  | "id"
  | "key"
  | "body"
  | "tombstone"
  | "headers"
  | "timestampMs";

/** Where one field of a message stands in a protocol. The codecs run these rows. */
export interface MappingRow {
  readonly field: MappedField;
  /** `own`: a place of the protocol; `header`: a header of ours; `rule`: the target; or nowhere. */
  readonly by: "own" | "header" | "rule" | "none";
  /** The place, or the header's name, in the protocol's words; empty: there is none. */
  readonly place: string;
  /** Type and unit of what stands there. */
  readonly form: string;
  /** The header of ours that keeps what the place can't hold exactly. */
  readonly spare?: string;
  /** What to know about it, one sentence. */
  readonly note?: string;
}

/** Something of one message that does not arrive. */
export interface Loss {
  readonly field: MappedField;
  /** What happens to it, short, such as `the header "cookie" is not sent`. */
  readonly what: string;
}

/** What a message loses that loses nothing: one list for all, so that asking costs nothing. */
export const noLosses: readonly Loss[] = [];

/** How a kind of bridge turns messages into its protocol's. Pure: nothing is sent. */
export interface Translation<Config = unknown> {
  /** The table's rows for a bridge of such a configuration; null: one that says nothing special. */
  rows(config: Config | null): readonly MappingRow[];
  /**
   * What a message loses on its way out; asked for every message, so it must be cheap. The id and
   * the time are the gateway's as much as the producer's: where a protocol has no place for them
   * the table says so, and no message is said to lose them. `form` is the one of `batchForms` in
   * which several go as one; none: each goes by itself.
   */
  losses(message: Message, config: Config, form?: string | null): readonly Loss[];
  /** Why the message could not be sent, whatever the address, or null. For previews. */
  refusal(message: Message, config: Config, nowMs: number, form?: string | null): string | null;
}

/** How CloudEvents stand in a protocol, as its binding says. */
export interface EventBinding {
  /** What stands before an attribute's name among the headers; empty: nothing does. */
  readonly prefix: string;
  /** What else may stand there when it is read. */
  readonly alsoRead?: readonly string[];
  /** Values are percent-encoded, as HTTP's binding has it. */
  readonly isPercentEncoded?: true;
}

/** A place in an outside system, as loops are found by it. */
export interface Place {
  /** What messages that are read there have as `origin.address`. */
  readonly name: string;
  /** What else tells it from others, such as a routing key. */
  readonly detail?: string;
}

/** How a kind of bridge knows its places again. */
export interface Places {
  /** The place of a sink's rendered address; null when it came to none. */
  of(fields: Readonly<Record<string, unknown>>): Place | null;
  /**
   * Whether a source's address reads what a sink's address sends; false where that depends on the
   * message.
   */
  feeds(
    sink: Readonly<Record<string, unknown>>,
    source: Readonly<Record<string, unknown>>,
  ): boolean;
}

/** One kind of outside system. */
export interface BridgeModule<Config = unknown> {
  readonly kind: string;
  /** Other names that a definition may use for the same kind. */
  readonly aliases?: readonly string[];
  readonly capabilities: Capabilities;
  /**
   * Checks the bare document of a bridge (without `kind`) and fills in defaults; connects nowhere.
   * @throws InvalidError with a pointer for each problem; unknown keys name the nearest known one.
   */
  parseConfig(input: unknown): Config;
  /**
   * Checks what stands under `from` or `to` beside `bridge` and `name`; text may hold `${…}`
   * when `end` is `sink`. Returns the address normalized. @throws InvalidError
   */
  parseAddress(input: Readonly<Record<string, unknown>>, end: "source" | "sink"): Address;
  /**
   * For each text field of a sink's address, the characters that a value put in by `${…}` may not
   * contain: the separator and the wildcards, such as `{ topic: "/+#" }`. `raw(x)` allows them.
   */
  readonly addressSpecials: Readonly<Record<string, string>>;
  /** Absent: messages pass as they are. */
  readonly translation?: Translation<Config>;
  /** Absent: loops through such bridges are not found. */
  readonly places?: Places;
  /** Absent: `format: cloudevents` is refused, and events are taken in as plain messages. */
  readonly events?: EventBinding;
  /**
   * Forms in which several messages go out as one, with one outcome for all of them; the first is
   * the default. `fixed.batch` of an address names the chosen one, or `cloudevents`: then each call
   * of `send` is one. Absent: each message goes by itself.
   */
  readonly batchForms?: readonly string[];
  /** Keys of a sink's address that become `fixed`: references may stand there, templates not. */
  readonly fixedKeys?: readonly string[];
  /** Connects; resolves once the broker has answered. @throws DisconnectedError try again later. */
  connect(config: Config, context: ConnectContext): Promise<Bridge>;
}

/** A place in an outside system: plain data. The same address as text is its identity. */
export interface Address {
  /** Shown and compared, such as `topic orders`. */
  readonly text: string;
  readonly fields: Readonly<Record<string, unknown>>;
  /**
   * What is the same for every message and no part of the identity, such as keys that sign. Its
   * texts may hold references, which the bridge resolves when it opens the sink.
   */
  readonly fixed?: Readonly<Record<string, unknown>>;
}

/** A live connection. Losing it makes its sources and sinks throw DisconnectedError. */
export interface Bridge extends AsyncDisposable {
  source(address: Address, options: SourceOptions): Promise<Source>;
  /** @throws InvalidError when the place is missing and `create` was not asked for. */
  sink(address: Address): Promise<Sink>;
  /** Resolves when the connection is lost or closed, with the reason; never rejects. */
  readonly closed: Promise<Error | null>;
}

/** How to read. */
export interface SourceOptions {
  /** The source's name: base of durable names (consumer groups, client ids, own queues). */
  readonly name: string;
  /** Where a reader starts that the broker does not know yet. */
  readonly start: "earliest" | "latest" | { readonly timestampMs: number };
  /** At most this many bytes of bodies unsettled; the bridge stops reading at the bound. */
  readonly unsettledBytesMax: number;
  /** What the source keeps where its broker keeps nothing for it; absent: it starts anew. */
  readonly memory?: SourceMemory;
  /** Told of messages that the broker no longer has and this source has not read. */
  readonly onGap?: (gap: SourceGap) => void;
}

/** Messages that went before they were read: purged, expired, or in a place made anew. */
export interface SourceGap {
  /** Where, in the bridge's own words, such as `topic orders partition 3`. */
  readonly place: string;
  /** What happened, with the first and the next position, as a sentence's end. */
  readonly reason: string;
}

/** A source's own small records, which outlive it and the process; each at most 4 KiB. */
export interface SourceMemory {
  load(name: string): Promise<Uint8Array | null>;
  /**
   * Resolves when they are on disk, within a tick of some 50 ms; null removes one.
   * @throws StorageError they may be lost.
   */
  save(entries: Iterable<readonly [string, Uint8Array | null]>): Promise<void>;
}

/** The reading end. */
export interface Source extends AsyncDisposable {
  /**
   * The next delivery; null when aborted. May be called again before earlier deliveries are
   * settled. One caller at a time. @throws DisconnectedError: open a source anew.
   */
  receive(signal: AbortSignal): Promise<Delivery | null>;
}

/** Messages taken from a source, not yet settled. */
export interface Delivery {
  /** At least one; in the source's order; all of one partition where the source has partitions. */
  readonly messages: readonly Message[];
  /**
   * For each message the id that its producer gave it, by which a delivery that the broker calls a
   * repeated one is recognised; null, or absent: it gave none.
   */
  readonly ids?: readonly (string | null)[];
  /**
   * For each message a name that its broker gives to no other, ever: a repeated delivery is known
   * by it whatever the broker says. It goes before the id; null, or absent: there is none.
   */
  readonly uniqueIds?: readonly (string | null)[];
  /**
   * Call exactly one of ack and nack, once. Acks may be called in any order: the bridge tells its
   * broker in the order it received. @throws DisconnectedError: the broker delivers again.
   */
  ack(): Promise<void>;
  /**
   * Gives it back; the broker delivers it again (`redeliverOnNack`), or the source is opened anew.
   */
  nack(): Promise<void>;
}

/** Where a sent message is in the target, in its own words, such as `partition 3 offset 42`. */
export type Position = string;

/**
 * What became of one message of a send.
 * `refused`: this message cannot be taken; `final` when no retry can change that.
 * `busyMs`: not now, try after so long; `reason` says what the target said. `unknown`: it may have
 * arrived, send it again.
 */
export type Outcome =
  | { readonly sent: Position | null }
  | { readonly refused: string; readonly final?: true }
  | { readonly busyMs: number; readonly reason?: string }
  | { readonly unknown: true };

/** A message on its way out, with the address fields that its rule rendered for it. */
export interface Outgoing {
  readonly message: Message;
  /** The sink's address with every `${…}` resolved for this message. */
  readonly fields: Readonly<Record<string, unknown>>;
  /**
   * Messages of a call in one lane go out one after another, each when the one before it is
   * confirmed; and once a message that names a lane was not sent, nothing more of its call is
   * begun: it is `unknown`. Calls that overlap have no lane in common. Given to sinks that say
   * `lanes`.
   */
  readonly lane?: string;
}

/** The writing end. */
export interface Sink extends AsyncDisposable {
  /**
   * Why the target wants nothing more, once it has said so; nothing is sent to it then. It counts
   * as an outage that only a person ends: a sink opened anew asks again.
   */
  readonly disabled?: string | null;
  /**
   * Sends and resolves when each message has its outcome, in the order of the input. Calls may
   * overlap and are delivered in call order. With `failure: prefix` everything after the first
   * message that was not sent is `unknown` or not sent either. An abort resolves soon, what was
   * not confirmed is `unknown`. @throws DisconnectedError: all of it is `unknown`.
   */
  send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]>;
}
