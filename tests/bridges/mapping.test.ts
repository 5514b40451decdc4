/** The mapping table: whole, without two meanings of one name, and as the documentation says. */
import { describe, expect, test } from "bun:test";
import { mapping } from "../../bridges/mapping.ts";
import { bridgeModules } from "../../bridges/registry.ts";
import type { MappedField, MappingRow } from "../../src/bridge.ts";
import { explainMapping } from "../../src/cli/map-explain.ts";
import { mappingPage } from "./mapping-page.ts";

const tables = Object.entries(mapping) as [string, readonly MappingRow[]][];
const page = `${import.meta.dir}/../../docs/mapping.md`;

describe("the mapping table", () => {
  test("has a row for each field of a message in each protocol", () => {
    const fields = mapping.kafka.map(({ field }) => field).toSorted();
    expect(new Set(fields).size).toBe(fields.length);
    expect(fields).toHaveLength(20);
    for (const [, rows] of tables)
      expect(rows.map(({ field }) => field).toSorted()).toEqual(fields);
  });

  test("gives every header of ours one meaning", () => {
    for (const [protocol, rows] of tables) {
      const names = rows.flatMap(({ by, place, spare }) => [
        ...(by === "header" ? [place] : []),
        ...(spare === undefined ? [] : [spare]),
      ]);
      expect([protocol, new Set(names).size]).toEqual([protocol, names.length]);
    }
  });

  test("is what every kind of bridge translates by", () => {
    for (const { kind, translation } of new Set(bridgeModules.values())) {
      const rows = translation?.rows(null) ?? [];
      expect([kind, rows.length]).toEqual([kind, mapping.kafka.length]);
    }
  });

  test("is what the documentation prints", async () => {
    if (process.env["ISTHMUS_WRITE_DOCS"] === "1") await Bun.write(page, mappingPage());
    const written = await Bun.file(page).text();
    const hint = "write it anew: ISTHMUS_WRITE_DOCS=1 bun test tests/bridges/mapping.test.ts";
    expect(written === mappingPage() ? "the same" : hint).toBe("the same");
  });
});

describe("an explanation", () => {
  const fates = (from: readonly MappingRow[], to: readonly MappingRow[]) =>
    new Map<MappedField, string>(explainMapping(from, to).map((each) => [each.field, each.fate]));

  test("tells what is carried, renamed, coerced, lost, and the rule's", () => {
    const fate = fates(mapping.kafka, mapping.mqtt);
    expect(fate.get("address")).toBe("rule");
    expect(fate.get("id")).toBe("carried");
    expect(fate.get("contentType")).toBe("renamed");
    expect(fate.get("expiresAtMs")).toBe("coerced");
    expect(
      [...fates(mapping.kafka, mapping["mqtt 3.1.1"])].filter(([, how]) => how === "lost").length,
    ).toBe(16);
  });

  test("of a protocol to itself carries everything", () => {
    for (const [protocol, rows] of tables) {
      const others = [...fates(rows, rows).values()].filter((how) => how !== "carried");
      expect([protocol, others]).toEqual([protocol, ["rule"]]);
    }
  });
});
