/**
 * The port: all that the gateway knows of an outside system. A bridge is one folder under
 * `bridges/`, one line in `bridges/registry.ts` and one test file that calls the conformance suite.
 * A bridge imports this file, `message.ts`, `errors.ts` and `clock.ts`, and nothing else of `src`.
 */
import type { Message } from "./message.ts";

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
