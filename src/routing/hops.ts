/**
 * The way that a message has taken, in the header `isthmus-hops`: written when it goes out by a
 * bridge, taken into its origin when it comes in. An entry is `GATEWAY/bridge/place`; the id of a
 * gateway is made once and kept with the log, so what comes back after a restart is still known.
 *
 * A message is in a loop when it is about to be sent to a place that it has been in, or has come in
 * by the same place twice. Where nothing else is known than where it came from, that is one look.
 */
import type { BridgeModule, Outgoing, Place } from "../bridge.ts";
import { hopsHeaderBytesMax, hopsMax } from "../limits.ts";
import type { States } from "../log/log.ts";
import {
  decodeText,
  encodeText,
  type Header,
  HOPS_HEADER,
  hopOf,
  type Message,
  type Origin,
  type StoredMessage,
} from "../message.ts";
import type { BridgeAddress, Definitions, TargetDocument } from "../rules/document.ts";
import { brokersOf } from "../rules/cycles-brokers.ts";

/** The state that holds the gateway's id. */
const ID_STATE = "$gateway/id";
const ID_SIGNS = "abcdefghjkmnpqrstuvwxyz23456789";
const ID_LENGTH = 10;
const ENTRY = /^[a-z0-9]{1,32}(?:\/[A-Za-z0-9._~%!'()*-]*){2,3}$/;

/** What becomes of the hops of one target's messages. */
export interface Trail {
  /** The way of a message that would go in a circle, ending with where it would go; else null. */
  loop(message: StoredMessage, outgoing: Outgoing): readonly string[] | null;
  /** The message with its way in a header. */
  leave(message: StoredMessage, outgoing: Outgoing): Outgoing;
}

/** What hops are made with. */
export interface HopsParts {
  readonly states: States;
  readonly modules: ReadonlyMap<string, BridgeModule>;
  readonly definitions: () => Definitions;
  readonly random: () => number;
}

/** A message with the hops of its header in its origin; the very same where it has none. */
export function arrived<T extends Message>(message: T): T {
  const { headers, origin } = message;
  const header = headers.find(({ name }) => name === HOPS_HEADER);
  if (header === undefined || origin === null) return message;
  const hops = parseHops(header.value === null ? "" : Buffer.from(header.value).toString("latin1"));
  if (hops === null) return message;
  return {
    ...message,
    headers: headers.filter((each) => each !== header),
    origin: { ...origin, hops: [...hops, ...origin.hops] },
  };
}

/** The hops of a header's text; null when no gateway wrote it. */
export function parseHops(text: string): readonly string[] | null {
  if (text === "" || text.length > hopsHeaderBytesMax) return null;
  const hops = text.split(",");
  return hops.every((hop) => ENTRY.test(hop)) ? hops : null;
}

/** The hops of one gateway. Open it before anything is sent. */
export class Hops {
  readonly #parts: HopsParts;
  #id: string | null = null;
  #brokers: { readonly of: Definitions; readonly names: ReadonlyMap<string, string> } | null = null;

  constructor(parts: HopsParts) {
    this.#parts = parts;
  }

  /** Finds the gateway's id, or makes it and keeps it. @throws StorageError it can't be kept. */
  async open(): Promise<void> {
    const { states, random } = this.#parts;
    const saved = await states.load(ID_STATE);
    if (saved !== null) {
      this.#id = (JSON.parse(decodeText(saved)) as { readonly id: string }).id;
      return;
    }
    const signs = Array.from({ length: ID_LENGTH }, () => {
      return ID_SIGNS[Math.floor(random() * ID_SIGNS.length)] ?? "a";
    });
    const id = signs.join("");
    await states.save([[ID_STATE, encodeText(JSON.stringify({ id }))]]);
    this.#id = id;
  }

  /** What looks after the messages of one target. */
  trail({ to, echo }: TargetDocument): Trail {
    if ("stream" in to) return this.#streamTrail(echo);
    const places = this.#parts.modules.get(to.kind)?.places;
    if (places === undefined) return NO_TRAIL;
    const last = new LastHeader();
    return {
      loop: (message, { fields }) => {
        const { origin } = message;
        if (origin === null || !this.#mayLoop(origin, to)) return null;
        const place = places.of(fields);
        if (place === null) return null;
        return this.#loop(origin, hopOf(to.bridge, place.name, place.detail), echo === "drop");
      },
      leave: ({ origin }, { message, fields }) => {
        const place = places.of(fields);
        const header = last.of(origin, place, () => this.#header(origin, to.bridge, place));
        return header === null
          ? { message, fields }
          : { message: withHops(message, header), fields };
      },
    };
  }

  /** Streams end a circle of their own by a count; with `echo: drop` at the first return. */
  #streamTrail(echo: TargetDocument["echo"]): Trail {
    if (echo === undefined) return NO_TRAIL;
    return {
      loop: ({ stream, origin }, { fields }) => {
        const hops = [...(origin?.hops ?? []), stream];
        const target = String(fields["stream"]);
        return hops.includes(target) ? [...hops, target] : null;
      },
      leave: (_, outgoing) => outgoing,
    };
  }

  /** Whether there is anything to compare: most messages have been nowhere near their target. */
  #mayLoop({ hops, bridge }: Origin, to: BridgeAddress): boolean {
    return (
      hops.length > 0 || bridge === to.bridge || this.#broker(bridge) === this.#broker(to.bridge)
    );
  }

  #loop(origin: Origin, target: string, isEcho: boolean): readonly string[] | null {
    const way = this.#way(origin);
    const passed = way.map((hop) => this.#plain(hop, isEcho));
    const wanted = this.#plain(target, isEcho);
    // Where it was sent to last is where it came in: the two are one.
    const isBack = passed.includes(wanted);
    const isSeen = passed.slice(0, -1).includes(passed.at(-1) ?? "");
    const isLong = way.length >= hopsMax;
    return isBack || isSeen || isLong ? [...way, target].map((hop) => this.#shown(hop)) : null;
  }

  /** The header of a message that goes to a place; null when there is no way to tell of. */
  #header(origin: Origin | null, bridge: string, place: Place | null): Header | null {
    const way = origin === null ? NOWHERE : this.#way(origin);
    const hops = place === null ? way : [...way, hopOf(bridge, place.name, place.detail)];
    if (hops.length === 0) return null;
    const text = hops.map((hop) => (hop.startsWith("/") ? `${this.#id ?? ""}${hop}` : hop)).join();
    return { name: HOPS_HEADER, value: Buffer.from(text) };
  }

  /** The places that a message has been in, oldest first, one after another. */
  #way(origin: Origin): readonly string[] {
    const came = this.#placeOf(origin);
    const hops = origin.hops.length === 0 ? NOWHERE : origin.hops.filter(isPlace);
    const all = came === null ? hops : [...hops, came];
    if (all.length < 2) return all;
    return all.filter((hop, index) => {
      const before = all[index - 1];
      return before === undefined || (this.#own(before) ?? before) !== (this.#own(hop) ?? hop);
    });
  }

  /** The place that a message came in by; null when no bridge brought it. */
  #placeOf({ bridge, address }: Origin): string | null {
    return this.#parts.definitions().bridges.has(bridge) ? hopOf(bridge, address) : null;
  }

  /** A hop as it is compared: of ours under the name of its broker; the place alone when `coarse`. */
  #plain(hop: string, coarse: boolean): string {
    const own = this.#own(hop);
    if (own === null) return hop;
    const [, bridge = "", place = "", detail] = own.split("/");
    const plain = `/${this.#broker(decoded(bridge))}/${place}`;
    return coarse || detail === undefined ? plain : `${plain}/${detail}`;
  }

  /** A hop of this gateway without its id; null: another one's. */
  #own(hop: string): string | null {
    if (hop.startsWith("/")) return hop;
    return this.#id !== null && hop.startsWith(`${this.#id}/`) ? hop.slice(this.#id.length) : null;
  }

  #shown(hop: string): string {
    return (this.#own(hop)?.slice(1) ?? hop).split("/").map(decoded).join("/");
  }

  /** The name that stands for a bridge's broker: several bridges may lead to one. */
  #broker(bridge: string): string {
    const definitions = this.#parts.definitions();
    if (this.#brokers?.of !== definitions) {
      const names = brokersOf(definitions.bridges);
      this.#brokers = { of: definitions, names };
    }
    return this.#brokers.names.get(bridge) ?? bridge;
  }
}

/** Most messages of a route come and go by the same places: the last one's header is theirs. */
class LastHeader {
  #origin: Origin | null = null;
  #place: Place | null = null;
  #header: Header | null = null;

  of(origin: Origin | null, place: Place | null, make: () => Header | null): Header | null {
    if (this.#isSame(origin, place)) return this.#header;
    this.#header = make();
    this.#origin = origin;
    this.#place = place;
    return this.#header;
  }

  #isSame(origin: Origin | null, place: Place | null): boolean {
    const [was, to] = [this.#origin, this.#place];
    if (origin === null || was === null || place === null || to === null) return false;
    return (
      origin.bridge === was.bridge &&
      origin.address === was.address &&
      origin.hops.length === was.hops.length &&
      origin.hops.every((hop, index) => hop === was.hops[index]) &&
      place.name === to.name &&
      place.detail === to.detail
    );
  }
}

/** The message with the header in place of any by its name. */
function withHops(message: Message, header: Header): Message {
  const { id, key, properties, body, timestampMs, origin } = message;
  const headers = message.headers.filter(({ name }) => name !== HOPS_HEADER);
  headers.push(header);
  return { id, key, properties, headers, body, timestampMs, origin };
}

const NO_TRAIL: Trail = { loop: () => null, leave: (_, outgoing) => outgoing };

const NOWHERE: readonly string[] = [];

/** Whether a hop is a place; the others are streams of the log. */
function isPlace(hop: string): boolean {
  return hop.includes("/");
}

function decoded(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch {
    // Another's, or one that was cut: shown as it is.
    return word;
  }
}
