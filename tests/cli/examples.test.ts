/** The examples are what people begin with: each parses, with the modules that are there. */
import { expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { bridgeModules } from "../../bridges/registry.ts";
import { parseDefinition, parseDefinitions } from "../../src/rules/parse.ts";
import { parseFile } from "../../src/rules/yaml.ts";

const folder = join(import.meta.dir, "..", "..", "examples");

const names = (await readdir(folder)).filter((each) => each.endsWith(".yaml"));

for (const name of names.filter((each) => !each.endsWith(".test.yaml"))) {
  test(`examples/${name} holds definitions without a fault`, async () => {
    const { value } = parseFile(await readFile(join(folder, name), "utf8"), name);
    const { documents, project } = parseDefinitions(value);
    expect(project).not.toBeNull();
    const bridges = new Map(
      documents
        .filter(({ kind }) => kind === "bridges")
        .map((each) => [each.name, { kind: each.document["kind"] as string }] as const),
    );
    for (const { kind, name: own, document } of documents) {
      const pointer = `/${kind}/${own}`;
      parseDefinition(kind, own, document, { modules: bridgeModules, bridges, pointer });
    }
  });
}
