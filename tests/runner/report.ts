/**
 * What a run of the tests comes to: the totals, and why each test that was skipped was skipped.
 * A test file reports as JUnit; one that leaves no report counts as one failed test.
 */

/** Results of one step or one test file. */
export interface Result {
  readonly passed: number;
  readonly failed: number;
  /** Names of the skipped tests; the reason stands in the name of the test or of its group. */
  readonly skipped: readonly string[];
}

/** One check that has no tests inside. */
export function singleResult(ok: boolean): Result {
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [] };
}

/** The sum of results. */
export function addResults(results: readonly Result[]): Result {
  return {
    passed: results.reduce((sum, each) => sum + each.passed, 0),
    failed: results.reduce((sum, each) => sum + each.failed, 0),
    skipped: results.flatMap((each) => each.skipped),
  };
}

/** `3 passed, 0 failed`, and `, 1 skipped` where there are any. */
export function resultText({ passed, failed, skipped }: Result): string {
  const rest = skipped.length > 0 ? `, ${skipped.length} skipped` : "";
  return `${passed} passed, ${failed} failed${rest}`;
}

/**
 * The result of one test file. The runner's exit code is believed over its report: when it failed
 * and no test did, something outside the tests has.
 */
export function fileResult(options: {
  readonly file: string;
  readonly ok: boolean;
  /** The JUnit report; null when there is none. */
  readonly xml: string | null;
}): Result {
  if (options.xml === null) return singleResult(false);
  const cases = testCases(options.xml);
  const failed = cases.filter((each) => each.outcome === "failed").length;
  return {
    passed: cases.filter((each) => each.outcome === "passed").length,
    failed: failed === 0 && !options.ok ? 1 : failed,
    skipped: cases
      .filter((each) => each.outcome === "skipped")
      .map((each) => `${options.file}: ${each.name}`),
  };
}

interface TestCase {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
}

function testCases(xml: string): TestCase[] {
  const pattern =
    /<testcase name="([^"]*)" classname="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g;
  return [...xml.matchAll(pattern)].map(([, name = "", group = "", inside = ""]) => ({
    name: unescapeXml(group === "" ? name : `${group}: ${name}`),
    outcome: outcomeOf(inside),
  }));
}

function outcomeOf(inside: string): TestCase["outcome"] {
  if (/<(failure|error)\b/.test(inside)) return "failed";
  return /<skipped\b/.test(inside) ? "skipped" : "passed";
}

function unescapeXml(text: string): string {
  return text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&#10;", " ")
    .replaceAll("&amp;", "&");
}
