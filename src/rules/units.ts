/**
 * The small notations of definitions: durations, byte counts, names and times. Each reader gives
 * null for what is not of its notation; the caller says where that was and what was expected.
 */

/** A definition's name: of a bridge, stream, source, hook, rule, project or target. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
/** A stream to read from: also internal ones (`$audit`) and what hangs on a rule (`RULE.dead`). */
const READABLE_STREAM = /^\$?[A-Za-z0-9][A-Za-z0-9._-]{0,109}$/;

const DURATION = /^(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)?$/;
const DURATION_UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const BYTES = /^(\d{1,15}(?:\.\d{1,9})?)(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$/;
const BYTES_UNIT: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};
const RFC3339 =
  /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))$/;
const RATE = /^([1-9]\d{0,8})\/(ms|s|m|h|d|\d+(?:ms|s|m|h|d))$/;
const AGO = /^(\S+)\s+ago$/;

/** So many in so long. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

/** What a duration looks like, for errors. */
export const DURATION_FORM = "a duration such as 500ms, 2s, 5m, 1h or 7d";
/** What a byte count looks like, for errors. */
export const BYTES_FORM = "a number of bytes such as 512, 64KiB, 10GiB or 1MB";
/** What a rate looks like, for errors. */
export const RATE_FORM = "a rate such as 100/s, 5000/m or 20/10s";
/** What a name looks like, for errors. */
export const NAME_FORM =
  "a name of letters, digits, dots, underscores and dashes, at most 100, the first a letter or digit";

/** Whether a text may name a definition. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Whether a text may name a stream that is read; writing needs `isName`. */
export function isReadableStream(text: string): boolean {
  return READABLE_STREAM.test(text);
}

/** So many in so long: `100/s`, `5000/m`, `20/10s`; at most `countMax`. */
export function parseRate(input: unknown, countMax: number): Rate | null {
  const match = typeof input === "string" ? RATE.exec(input) : null;
  const unit = match?.[2] ?? "";
  const perMs = parseDurationMs(/^\d/.test(unit) ? unit : `1${unit}`);
  const count = Number(match?.[1]);
  const isRate = match !== null && perMs !== null && perMs > 0 && count <= countMax;
  return isRate ? { count, perMs } : null;
}

/** Milliseconds of `500ms`, `2s`, `5m`, `1h`, `7d` or a bare number of milliseconds. */
export function parseDurationMs(input: unknown): number | null {
  return scaled(input, DURATION, DURATION_UNIT_MS);
}

/** Bytes of `512`, `64KiB`, `10GiB`, `1MB` or a bare number. */
export function parseByteCount(input: unknown): number | null {
  return scaled(input, BYTES, BYTES_UNIT);
}

/** Unix milliseconds of an RFC 3339 time, or of `1h ago` counted from `nowMs` when it is known. */
export function parseTimeMs(text: string, nowMs: number | null): number | null {
  const ago = AGO.exec(text);
  if (ago === null) return parseRfc3339Ms(text);
  if (nowMs === null) return null;
  const agoMs = parseDurationMs(ago[1]);
  return agoMs === null || !/[a-z]$/.test(ago[1] ?? "") ? null : nowMs - agoMs;
}

function scaled(
  input: unknown,
  form: RegExp,
  units: Readonly<Record<string, number>>,
): number | null {
  if (typeof input === "number") return Number.isSafeInteger(input) && input >= 0 ? input : null;
  const match = typeof input === "string" ? form.exec(input) : null;
  if (match === null) return null;
  const value = Number(match[1]) * (match[2] === undefined ? 1 : (units[match[2]] ?? Number.NaN));
  return Number.isSafeInteger(value) ? value : null;
}

function parseRfc3339Ms(text: string): number | null {
  const match = RFC3339.exec(text);
  if (match === null) return null;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const ms = Number(`0.${match[7] ?? "0"}`) * 1000;
  // A leap second counts as the second after it, as clocks that step do.
  if (hour > 23 || minute > 59 || second > 60) return null;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return null;
  const offsetHours = Number(match[10] ?? 0);
  const offsetMinutes = Number(match[11] ?? 0);
  if (offsetHours > 23 || offsetMinutes > 59) return null;
  const offset = (match[9] === "-" ? -1 : 1) * (offsetHours * 60 + offsetMinutes);
  return date.getTime() + ((hour * 60 + minute - offset) * 60 + second) * 1000 + Math.floor(ms);
}
