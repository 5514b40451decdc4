/**
 * `time.format(pattern)`: a time as text by the letters of strftime, in UTC or in a time zone of
 * the IANA database.
 */
import { timeZonesMax } from "../limits.ts";
import { Failure } from "../failure.ts";
import type { Evaluation } from "./evaluation.ts";
import { kindOf } from "./values.ts";

/** What one piece of a formatted time costs, and the look-up of a zone, in steps. */
const PIECE_STEPS = 10;
const ZONE_STEPS = 500;

/** A time taken apart, as a clock on a wall of the zone shows it. */
interface Wall {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const DAYS = "Sun Mon Tue Wed Thu Fri Sat".split(" ");
const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

/** What a letter writes; `offsetMs` is how far the zone is ahead of UTC. */
type Write = (wall: Wall, ms: number, offsetMs: number) => string;
const letters: ReadonlyMap<string, Write> = new Map<string, Write>([
  ["Y", ({ year }) => padded(year, 4)],
  ["m", ({ month }) => padded(month, 2)],
  ["d", ({ day }) => padded(day, 2)],
  ["H", ({ hour }) => padded(hour, 2)],
  ["M", ({ minute }) => padded(minute, 2)],
  ["S", ({ second }) => padded(second, 2)],
  ["L", (_wall, ms) => padded(modulo(ms, 1000), 3)],
  ["s", (_wall, ms) => String(Math.floor(ms / 1000))],
  ["j", (wall) => padded(Math.round((utc(wall, true) - yearStart(wall.year)) / DAY_MS) + 1, 3)],
  ["a", (wall) => DAYS[new Date(utc(wall, true)).getUTCDay()] ?? ""],
  ["b", ({ month }) => MONTHS[month - 1] ?? ""],
  ["z", (_wall, _ms, offsetMs) => offsetText(offsetMs)],
  ["%", () => "%"],
]);

const zones = new Map<string, Intl.DateTimeFormat | Failure>();

/** Formats a time. The values are: the time, the pattern and, perhaps, the zone. */
export function timeText(
  evaluation: Evaluation,
  time: unknown,
  pattern: unknown,
  zone: unknown = "UTC",
): unknown {
  if (!(time instanceof Date)) return new Failure(`format needs a timestamp, not ${kindOf(time)}`);
  if (typeof pattern !== "string" || typeof zone !== "string") {
    return new Failure("format needs a pattern such as '%Y-%m-%d', and a time zone as text");
  }
  evaluation.pay(pattern.length * PIECE_STEPS);
  const ms = time.getTime();
  if (zone !== "UTC") evaluation.pay(ZONE_STEPS);
  const wall = zone === "UTC" ? utcWall(time) : zonedWall(time, zone);
  if (wall instanceof Failure) return wall;
  const offsetMs = utc(wall, false) - Math.floor(ms / 1000) * 1000;
  let failure: Failure | null = null;
  const text = pattern.replaceAll(/%(.?)/gsu, (_match, letter: string) => {
    const write = letters.get(letter);
    if (write !== undefined) return write(wall, ms, offsetMs);
    failure ??= new Failure(`format: %${letter} is none of %${[...letters.keys()].join(" %")}`);
    return "";
  });
  return failure ?? text;
}

function utcWall(time: Date): Wall {
  return {
    year: time.getUTCFullYear(),
    month: time.getUTCMonth() + 1,
    day: time.getUTCDate(),
    hour: time.getUTCHours(),
    minute: time.getUTCMinutes(),
    second: time.getUTCSeconds(),
  };
}

function zonedWall(time: Date, zone: string): Wall | Failure {
  const format = zoneOf(zone);
  if (format instanceof Failure) return format;
  const parts = new Map(format.formatToParts(time).map(({ type, value }) => [type, Number(value)]));
  const part = (type: Intl.DateTimeFormatPartTypes): number => parts.get(type) ?? 0;
  return {
    year: part("year"),
    month: part("month"),
    day: part("day"),
    hour: part("hour"),
    minute: part("minute"),
    second: part("second"),
  };
}

/** Zones may come from messages: the ones asked for last are kept. */
function zoneOf(name: string): Intl.DateTimeFormat | Failure {
  const known = zones.get(name);
  if (known !== undefined) return known;
  const made = makeZone(name);
  if (zones.size >= timeZonesMax) zones.clear();
  if (name.length <= ZONE_CHARS_MAX) zones.set(name, made);
  return made;
}

/** The longest name of the IANA database has some 30 characters. */
const ZONE_CHARS_MAX = 64;

function makeZone(timeZone: string): Intl.DateTimeFormat | Failure {
  const unknown = new Failure(`there is no time zone ${JSON.stringify(timeZone.slice(0, 40))}`);
  if (timeZone.length > ZONE_CHARS_MAX) return unknown;
  try {
    return new Intl.DateTimeFormat("en-US", {
      timeZone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
  } catch (cause) {
    if (cause instanceof RangeError) return unknown;
    throw cause;
  }
}

/** The wall's time as if it were UTC; `dayOnly`: of its midnight. */
function utc(wall: Wall, dayOnly: boolean): number {
  const date = new Date(0);
  date.setUTCFullYear(wall.year, wall.month - 1, wall.day);
  if (!dayOnly) date.setUTCHours(wall.hour, wall.minute, wall.second);
  return date.getTime();
}

function yearStart(year: number): number {
  return new Date(0).setUTCFullYear(year, 0, 1);
}

function offsetText(offsetMs: number): string {
  const minutes = Math.round(Math.abs(offsetMs) / MINUTE_MS);
  const sign = offsetMs < 0 ? "-" : "+";
  return `${sign}${padded(Math.floor(minutes / 60), 2)}:${padded(minutes % 60, 2)}`;
}

function modulo(value: number, divisor: number): number {
  return ((value % divisor) + divisor) % divisor;
}

function padded(value: number, length: number): string {
  return String(value).padStart(length, "0");
}
