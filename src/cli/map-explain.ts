/**
 * What becomes of each field of a message between two protocols, read off the mapping table: pure,
 * so that the command, the documentation and the tests say the same.
 */
import type { MappedField, MappingRow } from "../bridge.ts";

/**
 * `carried`: in the same kind of place; `renamed`: whole, under another name; `coerced`: in another
 * type or unit; `lost`: not at all; `rule`: the rule's target says it, not the message.
 */
export type Fate = "carried" | "renamed" | "coerced" | "lost" | "rule";

/** One field between two protocols. */
export interface FieldFate {
  readonly field: MappedField;
  readonly fate: Fate;
  /** Its place where it comes from, and where it goes to; null: it has none there. */
  readonly from: string | null;
  readonly to: string | null;
  /** What to know; empty when there is nothing. */
  readonly note: string;
}

/** The fields that the first protocol has a place for, in the table's order. */
export function explainMapping(
  from: readonly MappingRow[],
  to: readonly MappingRow[],
): readonly FieldFate[] {
  const targets = new Map(to.map((row) => [row.field, row]));
  return from.flatMap((source) => {
    const target = targets.get(source.field);
    if (source.by === "none" || target === undefined) return [];
    const fate = fateOf(source, target);
    const place = target.by === "none" ? null : target.place;
    return [
      { field: source.field, fate, from: source.place, to: place, note: noteOf(target, fate) },
    ];
  });
}

function fateOf(source: MappingRow, target: MappingRow): Fate {
  if (target.by === "none") return "lost";
  if (target.by === "rule") return "rule";
  const isSameForm = kindOf(source.form) === kindOf(target.form);
  if (target.by === "own" && !isSameForm) return "coerced";
  return source.by === target.by && source.place === target.place ? "carried" : "renamed";
}

/** All kinds of text are one. */
function kindOf(form: string): string {
  if (/^(?:text|short string|topic)\b/.test(form)) return "text";
  if (form === "bit") return "flag";
  return form.startsWith("bytes") ? "bytes" : form;
}

function noteOf({ form, spare, note, by }: MappingRow, fate: Fate): string {
  const parts: string[] = [];
  if (fate === "coerced") parts.push(`as ${form}`);
  if (spare !== undefined && by === "own") parts.push(`whole in ${spare} where that can't hold it`);
  if (note !== undefined) parts.push(note);
  return parts.join("; ");
}
