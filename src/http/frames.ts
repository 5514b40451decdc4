/**
 * Frames of the socket, `isthmus.v1.json`: what a client may send, read strictly, and what the
 * server says. A frame that is wrong becomes an error that names its `sub` or `ref`.
 */
import { type InvalidDetail, InvalidError } from "../errors.ts";
import { parseJson } from "../json.ts";
import {
  idempotencyKeyCharsMax,
  idBytesMax,
  jwtCharsMax,
  socketRefCharsMax,
  windowDefault,
  windowMax,
} from "../limits.ts";
import type { Gap } from "../log/stream-reader.ts";
import { isName } from "../rules/units.ts";
import { didYouMean } from "../rules/suggest.ts";
import { MESSAGE_MEMBERS, type MessageInput, MessageReader } from "./message-input.ts";
import { gapJson } from "./position.ts";

export const SUBPROTOCOL = "isthmus.v1.json";

/** Codes with which the server closes. Up to 4499: come back; from 4500 on: don't. */
export const CLOSE = {
  failed: 1011,
  restart: 1012,
  unread: 4429,
  changed: 4410,
  unavailable: 4411,
  expired: 4401,
  authTimeout: 4408,
  unauthorized: 4501,
  forbidden: 4503,
  takenOver: 4509,
} as const;

export interface SubscribeFrame {
  readonly op: "subscribe";
  readonly sub: string;
  readonly stream: string;
  /** A place as text. */
  readonly from: string;
  readonly key: string | null;
  readonly where: string | null;
  readonly name: string | null;
  /** Which client it is, over all of its connections. */
  readonly client: string | null;
  readonly window: number;
  readonly as: string | null;
}

export interface PublishFrame {
  readonly op: "publish";
  readonly ref: string;
  readonly stream: string;
  readonly id: string | null;
  readonly message: MessageInput;
}

export type ClientFrame =
  | { readonly op: "auth"; readonly token: string }
  | SubscribeFrame
  | { readonly op: "ack"; readonly sub: string; readonly cursor: string }
  | { readonly op: "unsubscribe"; readonly sub: string }
  | PublishFrame
  | { readonly op: "ping" };

/** What an error is about: so much of the frame as could be read. */
export interface About {
  readonly ref?: string;
  readonly sub?: string;
}

type Members = Readonly<Record<string, unknown>>;

const MEMBERS: Readonly<Record<ClientFrame["op"], readonly string[]>> = {
  auth: ["op", "token"],
  subscribe: ["op", "sub", "stream", "from", "key", "where", "name", "client", "window", "as"],
  ack: ["op", "sub", "cursor"],
  unsubscribe: ["op", "sub"],
  publish: ["op", "ref", "stream", "id", ...MESSAGE_MEMBERS],
  ping: ["op"],
};

/** The JSON object of a frame. @throws InvalidError */
export function parseMembers(text: string): Members {
  const value = parseJson(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Members;
  throw new InvalidError("a frame is a JSON object");
}

/** What an error about this frame can name. */
export function aboutOf({ ref, sub }: Members): About {
  const usable = (value: unknown): value is string => {
    return typeof value === "string" && value.length <= socketRefCharsMax;
  };
  return { ...(usable(ref) ? { ref } : {}), ...(usable(sub) ? { sub } : {}) };
}

/** A client's frame. @throws InvalidError naming every member that is wrong. */
export function readFrame(members: Members): ClientFrame {
  const reader = new FrameReader(members);
  const frame = reader.read();
  const [first] = reader.errors;
  if (first !== undefined) {
    throw new InvalidError(`${first.pointer.slice(1)}: ${first.detail}`, reader.errors);
  }
  return frame;
}

class FrameReader {
  readonly errors: InvalidDetail[] = [];
  readonly #members: Members;

  constructor(members: Members) {
    this.#members = members;
  }

  read(): ClientFrame {
    const { op } = this.#members;
    const known = Object.keys(MEMBERS);
    if (typeof op !== "string" || !Object.hasOwn(MEMBERS, op)) {
      const near = typeof op === "string" ? didYouMean(op, known) : "";
      throw new InvalidError(`op: expected one of ${known.join(", ")}${near}`, [
        { pointer: "/op", detail: `expected one of ${known.join(", ")}${near}` },
      ]);
    }
    const kind = op as ClientFrame["op"];
    if (kind !== "publish") this.#checkMembers(MEMBERS[kind]);
    switch (kind) {
      case "auth":
        return { op: kind, token: this.#text("token", jwtCharsMax) };
      case "subscribe":
        return this.#subscribe();
      case "ack":
        return { op: kind, sub: this.#ref("sub"), cursor: this.#text("cursor", 20_000) };
      case "unsubscribe":
        return { op: kind, sub: this.#ref("sub") };
      case "publish":
        return this.#publish();
      case "ping":
        return { op: kind };
    }
  }

  #subscribe(): SubscribeFrame {
    const name = this.#optional("name");
    if (name !== null && !isName(name)) this.#add("name", "letters, digits and ._- (at most 100)");
    const client = this.#members["client"] === undefined ? null : this.#ref("client");
    return {
      op: "subscribe",
      sub: this.#ref("sub"),
      stream: this.#text("stream", socketRefCharsMax),
      from: this.#from(),
      key: this.#optional("key"),
      where: this.#optional("where"),
      name,
      client,
      window: this.#window(),
      as: this.#optional("as"),
    };
  }

  #publish(): PublishFrame {
    const reader = new MessageReader("");
    const message = reader.read(this.#members, MEMBERS.publish);
    this.errors.push(...reader.errors);
    const id = this.#optional("id");
    if (id !== null && !isUsableId(id)) {
      this.#add("id", `text of 1 to ${idBytesMax} bytes`);
    }
    const ref = this.#ref("ref");
    return { op: "publish", ref, stream: this.#text("stream", socketRefCharsMax), id, message };
  }

  #from(): string {
    const { from } = this.#members;
    if (from === undefined) return "latest";
    if (typeof from === "string" && from !== "") return from;
    if (typeof from === "object" && from !== null && "time" in from) {
      const { time } = from;
      if (typeof time === "string") return time;
      if (typeof time === "number" && Math.abs(time) <= 8.64e15)
        return new Date(time).toISOString();
    }
    this.#add("from", 'expected "latest", "earliest", a cursor or {"time":…}');
    return "latest";
  }

  #window(): number {
    const { window = windowDefault } = this.#members;
    const isCount = typeof window === "number" && Number.isInteger(window);
    if (isCount && window >= 1 && window <= windowMax) return window;
    this.#add("window", `expected a whole number from 1 to ${windowMax}`);
    return windowDefault;
  }

  #ref(name: string): string {
    return this.#text(name, socketRefCharsMax);
  }

  #text(name: string, charsMax: number): string {
    const value = this.#members[name];
    if (typeof value === "string" && value !== "" && value.length <= charsMax) return value;
    this.#add(name, `expected text of 1 to ${charsMax} characters`);
    return "";
  }

  #optional(name: string): string | null {
    const value = this.#members[name];
    if (value === undefined || value === null) return null;
    if (typeof value === "string") return value;
    this.#add(name, "expected text");
    return null;
  }

  #checkMembers(known: readonly string[]): void {
    for (const name of Object.keys(this.#members)) {
      if (known.includes(name)) continue;
      this.#add(name.slice(0, 60), `there is no such member${didYouMean(name, known)}`);
    }
  }

  #add(name: string, detail: string): void {
    this.errors.push({ pointer: `/${name}`, detail });
  }
}

function isUsableId(id: string): boolean {
  return id !== "" && id.length <= idempotencyKeyCharsMax && Buffer.byteLength(id) <= idBytesMax;
}

/**
 * `welcome`: the caller is known; `pingMs` is how often it should ping, `spreadMs` over how long
 * clients spread their return when the connection breaks without a word.
 */
export function welcomeFrame(
  session: string,
  told: { readonly pingMs: number; readonly spreadMs: number },
): string {
  const { pingMs, spreadMs } = told;
  return `{"op":"welcome","session":"${session}","pingMs":${pingMs},"spreadMs":${spreadMs}}`;
}

/** The reason of a close that says when to come back. At most 123 bytes, as the protocol wants. */
export function closeReason(text: string, retryMs: number): string {
  return `${text} retryMs=${Math.ceil(retryMs)}`;
}

/** `subscribed`: where reading stands; told again when something is found to be gone. */
export function subscribedFrame(sub: string, cursor: string, gap: Gap | null): string {
  const told = gap === null ? "null" : gapJson(gap);
  return `{"op":"subscribed","sub":${JSON.stringify(sub)},"cursor":"${cursor}","gap":${told}}`;
}

/** `cursor`: progress without a message. */
export function cursorFrame(sub: string, cursor: string): string {
  return `{"op":"cursor","sub":${JSON.stringify(sub)},"cursor":"${cursor}"}`;
}

/** `error`: never closes by itself. With `retryMs` the same may be tried again after so long. */
export function errorFrame(
  about: About,
  code: string,
  message: string,
  retryMs: number | null = null,
): string {
  const retry = retryMs === null ? {} : { retryMs };
  return JSON.stringify({ op: "error", ...about, code, message, ...retry });
}
