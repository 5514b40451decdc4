/**
 * A TCP proxy for tests that breaks things on command: cut, refuse, blackhole (nothing passes and
 * nothing closes), delay, cut after so many bytes, or break one connection. Never by chance.
 * `rewrite` replaces one byte sequence by another of the same length in what the upstream says:
 * Kafka tells its clients an address to connect to, which has to become the proxy's own. It looks
 * at whole frames, each led by its length in four bytes, as Kafka's are.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { freePort } from "./temporary.ts";

const HOST = "127.0.0.1";
const FRAME_LENGTH_BYTES = 4;
export interface ProxyOptions {
  readonly upstream: { readonly host: string; readonly port: number };
  /** Made from the proxy's port once it is known. */
  readonly rewrite?: (port: number) => { readonly from: Buffer; readonly to: Buffer };
}

type Direction = "toUpstream" | "toClient";

/**
 * What may happen to one connection. `stall`: nothing passes until `resume`, then all of it does;
 * `half-open`: nothing passes ever again, and an end of the upstream is not told to the client;
 * `tear`: half of the next chunk to the client passes, and then it is reset.
 */
export type LinkFault = "cut" | "stall" | "half-open" | "tear";

interface Link {
  readonly client: Socket;
  readonly upstream: Socket;
  fault: LinkFault | null;
  /** The part of a frame that has come so far, when frames are rewritten. */
  held: Buffer;
}

/** One listening port in front of one upstream. Every method acts on all connections. */
export class TcpProxy implements AsyncDisposable {
  readonly host = HOST;
  #port = 0;
  #server: Server | null = null;
  readonly #options: ProxyOptions;
  readonly #links = new Set<Link>();
  #blackholed = false;
  #delayMs = 0;
  #cutAfter: { direction: Direction; bytes: number } | null = null;
  #accepted = 0;

  private constructor(options: ProxyOptions) {
    this.#options = options;
  }

  /** Listens on a free port of the loopback. */
  static async open(options: ProxyOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(options);
    if (await proxy.#listen(await freePort())) return proxy;
    throw new Error("the proxy's port was taken");
  }

  get port(): number {
    return this.#port;
  }

  /** How many client connections are open now. */
  get connections(): number {
    return this.#links.size;
  }

  /** How many client connections there have been. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Resets every connection; new ones are accepted. */
  cut(): void {
    for (const link of this.#links) this.#destroy(link);
  }

  /** Resets every connection and refuses new ones until `up`. */
  async down(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.cut();
    if (server !== null) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** Accepts again, on the same port. */
  async up(): Promise<void> {
    if (this.#server !== null) return;
    if (!(await this.#listen(this.#port))) throw new Error(`port ${this.#port} was taken`);
  }

  /** While on, bytes of both directions vanish and nothing is closed: a half-open connection. */
  blackhole(on: boolean): void {
    this.#blackholed = on;
  }

  /** Every chunk waits so long before it is passed on, in order. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /**
   * The next connection that passes so many bytes in a direction is reset; then it is forgotten.
   */
  cutAfter(bytes: number, direction: Direction = "toUpstream"): void {
    this.#cutAfter = { bytes, direction };
  }

  /** Breaks one of the connections that are whole: the one at this share (0 up to 1) of them. */
  breakOne(fault: LinkFault, share: number): void {
    const whole = [...this.#links].filter((link) => link.fault === null);
    const link = whole[Math.floor(share * whole.length)];
    if (link === undefined) return;
    if (fault === "cut") return this.#destroy(link);
    link.fault = fault;
    if (fault !== "stall") return;
    link.client.pause();
    link.upstream.pause();
  }

  /** Ends all stalls. */
  resume(): void {
    for (const link of this.#links) {
      if (link.fault !== "stall") continue;
      link.fault = null;
      link.client.resume();
      link.upstream.resume();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
  }

  async #listen(port: number): Promise<boolean> {
    const server = createServer((client) => this.#accept(client));
    const listening = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, HOST, () => resolve(true));
    });
    if (!listening) return false;
    this.#port = port;
    this.#server = server;
    return true;
  }

  #accept(client: Socket): void {
    const upstream = connect(this.#options.upstream);
    const link: Link = { client, upstream, fault: null, held: Buffer.alloc(0) };
    this.#links.add(link);
    this.#accepted += 1;
    const end = (): void => this.#destroy(link);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      // The close that follows decides.
      socket.on("error", () => undefined);
      socket.on("close", () => {
        const isHidden = this.#blackholed || link.fault === "half-open";
        if (!isHidden || socket === client) end();
      });
    }
    client.on("data", (chunk: Buffer) => this.#pass(link, "toUpstream", chunk));
    upstream.on("data", (chunk: Buffer) =>
      this.#pass(link, "toClient", this.#rewritten(link, chunk)),
    );
  }

  #pass(link: Link, direction: Direction, chunk: Buffer): void {
    if (this.#blackholed || link.fault === "half-open" || chunk.length === 0) return;
    if (link.fault === "tear" && direction === "toClient") {
      const half = chunk.subarray(0, chunk.length / 2);
      return void link.client.write(half, () => this.#destroy(link));
    }
    const cut = this.#cutAfter;
    if (cut !== null && cut.direction === direction) {
      if (cut.bytes <= chunk.length) {
        this.#cutAfter = null;
        this.#target(link, direction).write(chunk.subarray(0, cut.bytes), () =>
          this.#destroy(link),
        );
        return;
      }
      cut.bytes -= chunk.length;
    }
    if (this.#delayMs === 0) this.#write(link, direction, chunk);
    else setTimeout(() => this.#write(link, direction, chunk), this.#delayMs);
  }

  #write(link: Link, direction: Direction, chunk: Buffer): void {
    if (!this.#links.has(link)) return;
    const target = this.#target(link, direction);
    if (target.write(chunk)) return;
    const origin = direction === "toUpstream" ? link.client : link.upstream;
    origin.pause();
    target.once("drain", () => {
      if (link.fault !== "stall") origin.resume();
    });
  }

  #target(link: Link, direction: Direction): Socket {
    return direction === "toUpstream" ? link.upstream : link.client;
  }

  #rewritten(link: Link, chunk: Buffer): Buffer {
    const rule = this.#options.rewrite?.(this.#port);
    if (rule === undefined) return chunk;
    const bytes = Buffer.concat([link.held, chunk]);
    const whole = framesLength(bytes);
    link.held = bytes.subarray(whole);
    const frames = bytes.subarray(0, whole);
    for (let at = frames.indexOf(rule.from); at >= 0; at = frames.indexOf(rule.from, at + 1)) {
      rule.to.copy(frames, at);
    }
    return frames;
  }

  #destroy(link: Link): void {
    if (!this.#links.delete(link)) return;
    link.client.resetAndDestroy();
    link.upstream.destroy();
  }
}

/** How many bytes the complete frames take. */
function framesLength(bytes: Buffer): number {
  let at = 0;
  while (at + FRAME_LENGTH_BYTES <= bytes.length) {
    const end = at + FRAME_LENGTH_BYTES + bytes.readInt32BE(at);
    if (end > bytes.length) break;
    at = end;
  }
  return at;
}
