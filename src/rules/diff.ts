/**
 * Differences between documents, line by line of their YAML, as people read them: `- ` is what
 * was, `+ ` is what is, two spaces before what both have, `…` for what is left out between.
 */
import { stringify } from "yaml";
import { diffCellsMax } from "./limits.ts";

/** Lines that stand unchanged before and after a difference. */
const CONTEXT = 2;

/** A value as lines of YAML; bytes and the like have no place in it. Nothing is no line. */
export function yamlLines(value: unknown): readonly string[] {
  if (value === undefined || value === null) return [];
  const text = stringify(value, { aliasDuplicateObjects: false, lineWidth: 0, version: "1.2" });
  return text.replace(/\n$/, "").split("\n");
}

/** What changes from one value to another; empty when nothing does. Null: there is none. */
export function diffValues(before: unknown, after: unknown): readonly string[] {
  return diffLines(yamlLines(before), yamlLines(after));
}

/** The same for lines. Beyond a bound of work the changed part is shown as replaced whole. */
export function diffLines(before: readonly string[], after: readonly string[]): readonly string[] {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head++;
  let tail = 0;
  const tailMax = Math.min(before.length, after.length) - head;
  while (tail < tailMax && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const old = before.slice(head, before.length - tail);
  const young = after.slice(head, after.length - tail);
  if (old.length === 0 && young.length === 0) return [];
  const changed =
    old.length * young.length > diffCellsMax ? replaced(old, young) : edits(old, young);
  return shortened([
    ...before.slice(0, head).map(same),
    ...changed,
    ...before.slice(before.length - tail).map(same),
  ]);
}

const same = (line: string): string => `  ${line}`;

function replaced(old: readonly string[], young: readonly string[]): string[] {
  return [...old.map((line) => `- ${line}`), ...young.map((line) => `+ ${line}`)];
}

/** The longest common lines stay; the table holds their count for each pair of ends. */
function edits(old: readonly string[], young: readonly string[]): string[] {
  const width = young.length + 1;
  const table = new Uint32Array((old.length + 1) * width);
  const at = (row: number, column: number): number => table[row * width + column] ?? 0;
  for (let row = old.length - 1; row >= 0; row--) {
    for (let column = young.length - 1; column >= 0; column--) {
      table[row * width + column] =
        old[row] === young[column]
          ? at(row + 1, column + 1) + 1
          : Math.max(at(row + 1, column), at(row, column + 1));
    }
  }
  const lines: string[] = [];
  let row = 0;
  let column = 0;
  while (row < old.length || column < young.length) {
    if (row < old.length && column < young.length && old[row] === young[column]) {
      lines.push(`  ${old[row++]}`);
      column++;
    } else if (
      row < old.length &&
      (column === young.length || at(row + 1, column) >= at(row, column + 1))
    ) {
      lines.push(`- ${old[row++]}`);
    } else lines.push(`+ ${young[column++]}`);
  }
  return lines;
}

/** Leaves out what is far from any change. */
function shortened(lines: readonly string[]): readonly string[] {
  const near = lines.map(() => false);
  for (const [index, line] of lines.entries()) {
    if (line.startsWith("  ")) continue;
    const from = Math.max(0, index - CONTEXT);
    near.fill(true, from, Math.min(lines.length, index + CONTEXT + 1));
  }
  return lines.flatMap((line, index) => {
    if (near[index] === true) return [line];
    return index === 0 || near[index - 1] === true ? ["  …"] : [];
  });
}
