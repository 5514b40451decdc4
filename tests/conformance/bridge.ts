/**
 * The conformance suite: what the port promises, held against any bridge by its declared
 * capabilities. A bridge's test file calls `conform` with its module, a way to make a fresh place
 * for each test, and its environment's hooks; what it cannot do it skips by name, with a reason.
 *
 * A module without a source gives `Place.arrived` instead: what reached the target so far.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { BridgeModule } from "../../src/bridge.ts";
import type { Message, Properties } from "../../src/message.ts";
import { documentBehaviours } from "./documents.ts";
import { faultBehaviours } from "./faults.ts";
import { killedBehaviours } from "./killed.ts";
import { outageBehaviours } from "./outage.ts";
import { Results } from "./results.ts";
import { sinkBehaviours } from "./sink.ts";
import { sourceBehaviours } from "./source.ts";
import { Session } from "./session.ts";

/** Every behaviour by its name: what `skips` refers to. */
export type Behaviour =
  | "keeps the order of equal keys"
  | "carries bodies byte for byte"
  | "tells a tombstone from an empty body"
  | "carries keys byte for byte, and their absence"
  | "carries headers as far as declared"
  | "carries the properties of the mapping table"
  | "keeps the message id"
  | "keeps the timestamp"
  | "gives each message its outcome at its index"
  | "keeps the order of overlapping sends"
  | "gives a refused message its outcome at its index"
  | "resolves an aborted send"
  | "refuses a missing place"
  | "gives an unsettled message again"
  | "gives nothing again after its ack"
  | "takes acks in any order"
  | "gives a nacked message again"
  | "shares the messages of a group"
  | "stops reading at the bound of unsettled bytes"
  | "ends an aborted receive with null"
  | "ends a waiting receive when it is disposed"
  | "names the nearest key for an unknown one"
  | "says in plain words that nobody listens"
  | "loses nothing when its connections drop"
  | "tells the loss of its connection"
  | "resolves an aborted send on a dead line"
  | "leaves nothing open after dispose"
  | "takes all or nothing of a message cut at any byte"
  | "notices a line that swallows everything"
  | "waits for slow confirms and sends nothing twice"
  | "keeps the order of a key through reconnects"
  | "hands on what a lost member of its group held"
  | "loses nothing while its broker is killed again and again"
  | "takes a password that has changed";

/** A fresh place in the broker: nothing of another test is in it. */
export interface Place {
  /** Bare address documents, as under `from` and `to` (without `bridge`). */
  readonly source?: Readonly<Record<string, unknown>>;
  readonly sink: Readonly<Record<string, unknown>>;
  /** For modules without a source: everything that has arrived so far, in order. */
  readonly arrived?: () => Promise<readonly Message[]>;
  readonly cleanup?: () => Promise<void>;
}

/** The line between a bridge and its broker, in the test's hands. `TcpProxy` is one. */
export interface Line extends AsyncDisposable {
  /** How many connections are open. */
  readonly connections: number;
  /** Breaks every connection; new ones are accepted. */
  cut(): void;
  /** Breaks every connection and refuses new ones. */
  down(): Promise<void>;
  /** While on, nothing passes and nothing is closed. */
  blackhole(on: boolean): void;
  /** Breaks the next connection that passes so many bytes to the broker, after them. */
  cutAfter?(bytes: number): void;
  /** Whatever passes comes so much later, in order. */
  delay?(ms: number): void;
}

/** A broker that the suite may kill; disposing of it ends it. */
export interface Mortal extends AsyncDisposable {
  /** The bare bridge document that leads to it. */
  readonly config: unknown;
  readonly place: Place;
  /** As a power cut of its machine. */
  kill(): Promise<void>;
  /** With the same port and data; resolves when it answers. */
  restart(): Promise<void>;
}

/** A login at a broker that the suite may change; disposing of it ends the broker. */
export interface Credentials extends AsyncDisposable {
  /** The bare bridge document; its password is a reference, which `password` resolves. */
  readonly config: unknown;
  readonly password: string;
  change(): Promise<void>;
}

/** A bridge that reaches its broker through a line that can be broken. */
export interface Proxied {
  /** The bare bridge document that leads through the line. */
  readonly config: unknown;
  readonly proxy: Line;
}

/** What a bridge's test file says about itself and its environment. */
export interface Conformance {
  readonly name: string;
  readonly module: BridgeModule;
  /** Set when there is no broker: the whole suite is skipped with this reason. */
  readonly unavailable?: string | null;
  /** The bare bridge document (without `kind`). */
  readonly config: () => Promise<unknown>;
  readonly place: () => Promise<Place>;
  /** A bare bridge document that leads to a port where nobody listens, such as 127.0.0.1:9. */
  readonly deadConfig: unknown;
  /** A well-formed sink address whose topic or queue is not there; no `create`. */
  readonly missingSink?: Readonly<Record<string, unknown>>;
  /** A message that the target refuses for good, made from an acceptable one. */
  readonly refused?: (message: Message) => Message;
  /** The properties that the protocol carries; by default those that all of AMQP and Kafka have. */
  readonly properties?: readonly (keyof Properties)[];
  /** How exact a timestamp arrives: 1 for milliseconds, 1000 for seconds. Default 1. */
  readonly timestampUnitMs?: number;
  /** Opens a proxy and a document that leads through it; the suite closes the proxy. */
  readonly proxied?: () => Promise<Proxied>;
  /** Members of the bridge document that make it notice a silent line within a few seconds. */
  readonly quick?: Readonly<Record<string, unknown>>;
  /** Why the proxy can't cut after so many bytes, or be slow. */
  readonly noCuts?: string;
  /** Starts a broker of the test's own, to kill. */
  readonly mortal?: () => Promise<Mortal>;
  /** Starts a broker of the test's own, with a login. */
  readonly credentials?: () => Promise<Credentials>;
  readonly skips?: Partial<Readonly<Record<Behaviour, string>>>;
}

/** One behaviour: when it applies, and how it is shown. */
export interface Case {
  readonly name: Behaviour;
  /** When a hang counts as one; by default a minute. Milliseconds. */
  readonly timeoutMs?: number;
  /** Null when the declared capabilities and the environment call for it; else why they don't. */
  readonly notFor?: (subject: Conformance) => string | null;
  readonly run: (session: Session, subject: Conformance) => Promise<void>;
}

/** A rebalance or a reconnect takes seconds on a loaded machine; a pass never waits so long. */
const TEST_TIMEOUT_MS = 60_000;

const cases: readonly Case[] = [
  ...documentBehaviours,
  ...sinkBehaviours,
  ...sourceBehaviours,
  ...outageBehaviours,
  ...faultBehaviours,
  ...killedBehaviours,
];

/** Registers the suite's tests for one bridge. Call it once, at the top level of a test file. */
export function conform(subject: Conformance): void {
  setDefaultTimeout(TEST_TIMEOUT_MS);
  const results = new Results(subject.name);
  describe(`bridge ${subject.name}`, () => {
    afterAll(async () => await results.write());
    for (const behaviour of cases) {
      const reason =
        subject.unavailable ??
        subject.skips?.[behaviour.name] ??
        behaviour.notFor?.(subject) ??
        null;
      results.note(behaviour.name, reason ?? "failed");
      if (reason !== null) {
        test.skip(`${behaviour.name} (${reason})`, () => {});
        continue;
      }
      test(
        behaviour.name,
        async () => {
          await using session = new Session(subject);
          await behaviour.run(session, subject);
          results.note(behaviour.name, null);
        },
        behaviour.timeoutMs ?? TEST_TIMEOUT_MS,
      );
    }
    test("names only behaviours of the suite in its skips", () => {
      const names = new Set<string>(cases.map((behaviour) => behaviour.name));
      for (const name of Object.keys(subject.skips ?? {})) expect(names).toContain(name);
    });
  });
}
