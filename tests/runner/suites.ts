/** Which test files there are, and how each group of them is run. */
import { Glob } from "bun";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";

/** The project's folder. */
export const rootFolder = resolve(import.meta.dir, "../..");

/** A group of test files that is run as one step. */
export interface Suite {
  readonly title: string;
  /** In order of their paths. */
  readonly files: readonly string[];
  /** Files run at once; those that load the machine run alone. */
  readonly parallel: number;
  /** A file that takes longer is ended and has failed. */
  readonly fileMsMax: number;
  /** Whether each file gets a line of its own in the report. */
  readonly linePerFile: boolean;
}

const minuteMs = 60_000;
/** Conformance files at once: one that has a machine to itself leaves nine tenths of it idle. */
const conformanceFiles = 2;
/** With --full the suites run whole and not a sample of them. */
const fullFactor = 12;

/** Benchmarks assert nothing and are no part of a test run. */
const ownFolders = [
  "tests/sim/",
  "tests/conformance/",
  "tests/e2e/",
  "tests/crash/",
  "tests/bench/",
];

/** The suites that have files, in the order in which they run. */
export function findSuites(options: {
  readonly full: boolean;
  readonly unitOnly: boolean;
  /** Only files whose path holds one of these; all when there are none. */
  readonly patterns: readonly string[];
}): Suite[] {
  const { patterns } = options;
  const all = [...new Glob("tests/**/*.test.ts").scanSync({ cwd: rootFolder })]
    .filter((file) => patterns.length === 0 || patterns.some((each) => file.includes(each)))
    .toSorted();
  const below = (folder: string): string[] => all.filter((file) => file.startsWith(folder));
  const factor = options.full ? fullFactor : 1;
  const suite = (title: string, files: string[], minutes: number, parallel = 1): Suite => ({
    title,
    files,
    parallel,
    fileMsMax: minutes * minuteMs * factor,
    linePerFile: title !== "unit",
  });
  const unit = all.filter((file) => !ownFolders.some((folder) => file.startsWith(folder)));
  const suites = [suite("unit", unit, 3, availableParallelism())];
  if (!options.unitOnly) {
    suites.push(suite("simulation", below("tests/sim/"), 5));
    // They wait for their brokers nearly all the time, each in places of its own.
    suites.push(suite("conformance", below("tests/conformance/"), 5, conformanceFiles));
    suites.push(suite("end-to-end", below("tests/e2e/"), 5));
    suites.push(suite("crash", below("tests/crash/"), 8));
  }
  return suites.filter(({ files }) => files.length > 0);
}
