/**
 * `isthmus rule test`: runs a file of tests over the rules of a definitions file, without a
 * gateway, or over those of a running one. Fails with 1 when a test does; a file that is wrong
 * ends with 1 too, as wrong usage of the command with 2.
 */
import { dirname, resolve } from "node:path";
import type { BridgeModule } from "../bridge.ts";
import { InvalidError } from "../errors.ts";
import { planOf } from "../routing/plan.ts";
import type { BridgeDocument, Definition, Definitions, Kind } from "../rules/document.ts";
import {
  type NamedDocument,
  type ParsedDocuments,
  parseDefinition,
  parseDefinitions,
} from "../rules/parse.ts";
import { bridgesOf, Rehearsal } from "../rules/rehearsal.ts";
import { noDefinitions } from "../rules/store/accepted.ts";
import {
  parseTestFile,
  type RuleTestResult,
  runRuleTest,
  type TestedRule,
} from "../rules/testfile.ts";
import { connect } from "./client.ts";
import type { ConnectionFlags } from "./connection.ts";
import { inFile, readDefinitionsFile } from "./definitions-file.ts";
import { CliError } from "./failure.ts";
import { definitionOf } from "./get.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";

/** Its flags. */
export interface RuleTestFlags extends ConnectionFlags {
  readonly file: string;
}

/** What rules depend on, in the order in which kinds depend on one another. */
const NEEDED: readonly Kind[] = ["bridges", "sources", "rules"];

/** Runs the tests and prints each that fails. @throws CliError some have failed */
export async function ruleTest(flags: RuleTestFlags): Promise<void> {
  const output = new Output(flags);
  const { name, file } = await readDefinitionsFile(flags.file);
  const { definitions, tests } = inFile(name, () => {
    return explainedBy(file, () => parseTestFile(file.value));
  });
  const isOffline = definitions !== null && flags.server === undefined;
  const folder = flags.file === "-" ? process.cwd() : dirname(flags.file);
  const rules = isOffline
    ? await rulesOfFile(resolve(folder, definitions))
    : await rulesOfGateway(flags);
  const results = tests.map((test) => inFile(name, () => runRuleTest(test, rules)));
  const failed = results.filter(({ passed }) => !passed);
  if (output.json) {
    await output.value({ passed: results.length - failed.length, failed: failed.length, results });
  } else {
    for (const result of results) await printResult(output, result);
  }
  if (failed.length > 0) throw new CliError(`${failed.length} of ${results.length} tests failed`);
  if (!output.json) await output.line(`${results.length} passed`);
}

type Explaining = Awaited<ReturnType<typeof readDefinitionsFile>>["file"];

function explainedBy<T>(file: Explaining, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw error instanceof InvalidError ? file.explain(error) : error;
  }
}

async function rulesOfFile(path: string): Promise<readonly TestedRule[]> {
  const { name, file } = await readDefinitionsFile(path);
  const modules = await bridgeModules();
  return inFile(name, () => {
    return explainedBy(file, () => testedRules(parseDefinitions(file.value).documents, modules));
  });
}

async function rulesOfGateway(flags: ConnectionFlags): Promise<readonly TestedRule[]> {
  const client = await connect(flags);
  const documents: NamedDocument[] = [];
  for (const kind of NEEDED) {
    const items = (await client.list(apiPath(kind))).map(definitionOf);
    for (const { name, revision, document } of items) {
      if (revision === 0) continue;
      documents.push({ kind, name, document: document as NamedDocument["document"] });
    }
  }
  return testedRules(documents, await bridgeModules());
}

async function bridgeModules(): Promise<ReadonlyMap<string, BridgeModule>> {
  // Loaded here: with them comes what the whole gateway is made of.
  const { knownModules } = await import("../main.ts");
  return knownModules();
}

function testedRules(
  documents: readonly NamedDocument[],
  modules: ReadonlyMap<string, BridgeModule>,
): readonly TestedRule[] {
  const definitions = definitionsOf(documents, modules);
  const bridges = bridgesOf(definitions, modules);
  return planOf(definitions).rules.map(({ name, stream, definition: { parsed } }) => {
    const rehearsal = new Rehearsal(name, parsed, bridges);
    return { name, stream, enabled: parsed.enabled, rehearsal };
  });
}

/** The documents parsed, as a gateway would; kinds that rules do not need are left out. */
function definitionsOf(
  documents: readonly NamedDocument[],
  modules: ReadonlyMap<string, BridgeModule>,
): Definitions {
  const bridges = new Map<string, BridgeDocument>();
  const context = { modules, bridges, nowMs: Date.now() };
  const ofKind = <K extends Kind>(kind: K): Map<string, Definition<ParsedDocuments[K]>> => {
    const own = documents.filter((each) => each.kind === kind);
    return new Map(
      own.map(({ name, document }) => {
        const pointer = `/${kind}/${name}`;
        const parsed = parseDefinition(kind, name, document, { ...context, pointer });
        return [name, { kind, name, revision: 1, project: null, document, parsed }] as const;
      }),
    );
  };
  const parsedBridges = ofKind("bridges");
  for (const [name, { parsed }] of parsedBridges) bridges.set(name, parsed);
  const sources = ofKind("sources");
  return { ...noDefinitions, bridges: parsedBridges, sources, rules: ofKind("rules") };
}

async function printResult(output: Output, result: RuleTestResult): Promise<void> {
  await output.line(`${result.passed ? "ok  " : "FAIL"} ${result.name}`);
  for (const { sentence, diff } of result.faults) {
    await output.line(`     ${sentence}${diff.length === 0 ? "" : " (- expected, + found):"}`);
    for (const line of diff) await output.line(`       ${line}`);
  }
}
