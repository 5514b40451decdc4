/**
 * Rows of the speed table: a ratio beside its bound, from rounds that alternate within one run, so
 * that other load on the machine meets both sides. Prints; asserts nothing.
 */

/** One figure and what it shall be. */
export interface Row {
  readonly what: string;
  /** Null: it could not be measured; `detail` says why. */
  readonly value: number | null;
  readonly bound: number;
  readonly isAtMost?: boolean;
  /** The two sides, in their own units. */
  readonly detail: string;
}

/** Whether a row keeps its bound; null when it was not measured. */
export function passes({ value, bound, isAtMost }: Row): boolean | null {
  if (value === null) return null;
  return isAtMost === true ? value <= bound : value >= bound;
}

/** One line of the table. */
export function printRow(row: Row): void {
  const verdict = { true: "pass", false: "short", null: "not measured" }[`${passes(row)}`];
  const sign = row.isAtMost === true ? "≤" : "≥";
  const value = row.value === null ? "–" : String(Number(row.value.toPrecision(3)));
  const cells = [row.what.padEnd(58), value.padStart(9), `${sign} ${row.bound}`.padStart(11)];
  console.log(`${cells.join(" ")}  ${verdict.padEnd(12)}  ${row.detail}`);
}

/** The middle one. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Measures both sides in turns, first the one and then the other; medians, and of the ratios. */
export async function inTurns(
  rounds: number,
  first: () => Promise<number>,
  second: () => Promise<number>,
): Promise<{ first: number; second: number; ratio: number }> {
  const firsts: number[] = [];
  const seconds: number[] = [];
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 1) seconds.push(await second());
    firsts.push(await first());
    if (round % 2 === 0) seconds.push(await second());
  }
  const ratios = firsts.map((value, index) => value / (seconds[index] ?? Number.NaN));
  return { first: median(firsts), second: median(seconds), ratio: median(ratios) };
}

/** A rate or a count, short. */
export function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  return value >= 1e4 ? `${(value / 1e3).toFixed(1)} k` : value.toFixed(0);
}
