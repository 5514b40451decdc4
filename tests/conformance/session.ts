/**
 * What one test of the conformance suite works with: bridges, sources and sinks of a fresh place,
 * all disposed when the test ends, and small verbs over them. Waits end by condition; the one
 * deadline is there to turn a hang into a failure that says what was missing.
 */
import type { Bridge, Delivery, Outcome, Outgoing, Sink, Source } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { encodeText, type Message } from "../../src/message.ts";
import type { Conformance, Place, Proxied } from "./bridge.ts";

/** After so long a missing message counts as lost. */
const ARRIVAL_MS = 30_000;
/** How long a test looks for what must not come; being slow only makes it look less closely. */
const SILENCE_MS = 400;
const UNSETTLED_BYTES_MAX = 16 * 1024 * 1024;

export class Session implements AsyncDisposable {
  readonly #subject: Conformance;
  readonly #open: AsyncDisposable[] = [];
  #place: Place | null = null;
  #bridge: Bridge | null = null;
  #made = 0;
  readonly #run = crypto.randomUUID().slice(0, 8);

  constructor(subject: Conformance) {
    this.#subject = subject;
  }

  /** Never aborted before the test ends. */
  readonly signal = new AbortController().signal;

  /** The place of this test, made at the first call. */
  async place(): Promise<Place> {
    if (this.#place !== null) return this.#place;
    const place = await this.#subject.place();
    this.#place = place;
    this.own({ [Symbol.asyncDispose]: async () => await place.cleanup?.() });
    return place;
  }

  /** Disposes of something when the test ends, last first. */
  own<T extends AsyncDisposable>(resource: T): T {
    this.#open.push(resource);
    return resource;
  }

  /** A connection of its own. Without a document: the subject's. */
  async connect(document?: unknown, resolve = (text: string): string => text): Promise<Bridge> {
    const { module } = this.#subject;
    const config = module.parseConfig(document ?? (await this.#subject.config()));
    const context = {
      name: `conform-${this.#run}`,
      resolve: (text: string) => Promise.resolve(text.includes("${") ? resolve(text) : text),
      signal: this.signal,
    };
    return this.own(await module.connect(config, context));
  }

  /** A session with a place of its own, for a test of several rounds. Dispose of it. */
  fresh(subject: Conformance): Session {
    return new Session(subject);
  }

  async proxied(): Promise<Proxied> {
    const open = this.#subject.proxied;
    if (open === undefined) throw new Error("the subject has no proxy");
    const proxied = await open();
    this.own(proxied.proxy);
    return proxied;
  }

  async #shared(): Promise<Bridge> {
    this.#bridge ??= await this.connect();
    return this.#bridge;
  }

  /** A source of the test's place; the same reader's name gives the same group or session. */
  async source(
    options: { bridge?: Bridge; name?: string; unsettledBytesMax?: number } = {},
  ): Promise<Source> {
    const bridge = options.bridge ?? (await this.#shared());
    const place = await this.place();
    if (place.source === undefined) throw new Error("the place has no source");
    const address = this.#subject.module.parseAddress(place.source, "source");
    const source = await bridge.source(address, {
      name: `${options.name ?? "reader"}-${this.#run}`,
      start: "earliest",
      unsettledBytesMax: options.unsettledBytesMax ?? UNSETTLED_BYTES_MAX,
    });
    return this.own(source);
  }

  async sink(options: { bridge?: Bridge } = {}): Promise<Sink> {
    const bridge = options.bridge ?? (await this.#shared());
    const place = await this.place();
    return this.own(await bridge.sink(this.#subject.module.parseAddress(place.sink, "sink")));
  }

  /** A message with everything plain; `body` counts up unless it is given. */
  message(parts: Partial<Message> = {}): Message {
    this.#made += 1;
    return {
      id: `${this.#run}-${this.#made}`,
      key: null,
      properties: {},
      headers: [],
      body: encodeText(`message ${this.#made}`),
      timestampMs: 1_700_000_000_000 + this.#made * 1000,
      origin: null,
      ...parts,
    };
  }

  messages(count: number, parts: (index: number) => Partial<Message> = () => ({})): Message[] {
    return Array.from({ length: count }, (_, index) => this.message(parts(index)));
  }

  /** Messages with the fields of the place's sink address. */
  async outgoing(messages: readonly Message[]): Promise<Outgoing[]> {
    const place = await this.place();
    const { fields } = this.#subject.module.parseAddress(place.sink, "sink");
    return messages.map((message) => ({ message, fields }));
  }

  async send(sink: Sink, messages: readonly Message[]): Promise<readonly Outcome[]> {
    return await sink.send(await this.outgoing(messages), this.signal);
  }

  /** Sends until every message is confirmed: what is busy, unknown or not final goes again. */
  async sendAll(sink: Sink, messages: readonly Message[]): Promise<void> {
    let rest = messages;
    const deadline = systemClock.monotonicMs() + ARRIVAL_MS;
    while (rest.length > 0) {
      const outcomes = await this.send(sink, rest);
      rest = rest.filter((_, index) => !("sent" in (outcomes[index] ?? {})));
      if (rest.length > 0 && systemClock.monotonicMs() > deadline) {
        throw new Error(`not confirmed: ${JSON.stringify(outcomes)}`);
      }
    }
  }

  /** The next delivery. */
  async next(source: Source): Promise<Delivery> {
    const delivery = await source.receive(AbortSignal.timeout(ARRIVAL_MS));
    if (delivery === null) throw new Error("nothing was delivered");
    return delivery;
  }

  /** The next delivery, or null when there is none for a while. */
  async nextOrSilence(source: Source): Promise<Delivery | null> {
    return await source.receive(AbortSignal.timeout(SILENCE_MS));
  }

  /** Receives and acks until `enough` says so of all that came. */
  async collectUntil(
    source: Source,
    enough: (messages: readonly Message[]) => boolean,
    ms = ARRIVAL_MS,
  ): Promise<Message[]> {
    const messages: Message[] = [];
    const deadline = AbortSignal.timeout(ms);
    while (!enough(messages)) {
      const delivery = await source.receive(deadline);
      if (delivery === null) {
        throw new Error(`only ${messages.length} came: ${messages.map((m) => m.id).join(" ")}`);
      }
      messages.push(...delivery.messages);
      await delivery.ack();
    }
    return messages;
  }

  async collect(source: Source, count: number): Promise<Message[]> {
    return await this.collectUntil(source, (messages) => messages.length >= count);
  }

  /**
   * A reader of everything that arrives at the place, opened before anything is sent: a source, or
   * the place's own eyes when the module has none.
   */
  async reader(): Promise<(count: number) => Promise<readonly Message[]>> {
    const place = await this.place();
    const { arrived } = place;
    if (arrived === undefined) {
      const source = await this.source();
      return async (count) => await this.collect(source, count);
    }
    return async (count) => {
      const deadline = systemClock.monotonicMs() + ARRIVAL_MS;
      for (;;) {
        const messages = await arrived();
        if (messages.length >= count) return messages;
        if (systemClock.monotonicMs() > deadline) throw new Error(`only ${messages.length} came`);
        await systemClock.sleep(20);
      }
    };
  }

  /** Waits until a condition holds. */
  async until(
    what: string,
    condition: () => boolean | Promise<boolean>,
    ms = ARRIVAL_MS,
  ): Promise<void> {
    const deadline = systemClock.monotonicMs() + ms;
    while (!(await condition())) {
      if (systemClock.monotonicMs() > deadline) throw new Error(`still not so: ${what}`);
      await systemClock.sleep(10);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const resource of this.#open.reverse()) await resource[Symbol.asyncDispose]();
  }
}

/** Fails instead of hanging when something does not settle. */
export async function settles<T>(
  what: string,
  promise: PromiseLike<T>,
  ms = ARRIVAL_MS,
): Promise<T> {
  const timeout = new AbortController();
  const late = systemClock.sleep(ms, timeout.signal).then(() => {
    if (!timeout.signal.aborted) throw new Error(`did not settle: ${what}`);
    return null as never;
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timeout.abort();
  }
}

/** The body as text, which tells messages apart where the protocol does not carry an id. */
export function bodyText(message: Message): string {
  return message.body === null ? "null" : Buffer.from(message.body).toString("utf8");
}
