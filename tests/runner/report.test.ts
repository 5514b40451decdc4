/** Counting of results: nothing that ended badly may count as passed. */
import { expect, test } from "bun:test";
import { addResults, fileResult, resultText, singleResult } from "./report.ts";

const file = "tests/a.test.ts";
const xml = `<testsuites name="bun test" tests="4" failures="1" skipped="1">
  <testsuite name="tests/a.test.ts">
    <testcase name="a &lt;b&gt;" classname="" time="0" assertions="1" />
    <testsuite name="group (no broker)">
      <testcase name="c" classname="group (no broker)" time="0">
        <skipped />
      </testcase>
    </testsuite>
    <testcase name="d" classname="" time="0">
      <failure type="AssertionError" message="x">y</failure>
    </testcase>
    <testcase name="e" classname="" time="0" />
  </testsuite>
</testsuites>`;

test("counts what passed, failed and was skipped, with the reason in the name", () => {
  expect(fileResult({ file, ok: false, xml })).toEqual({
    passed: 2,
    failed: 1,
    skipped: ["tests/a.test.ts: group (no broker): c"],
  });
});

test("counts a file without a report as one failure, whatever its exit code", () => {
  expect(fileResult({ file, ok: true, xml: null }).failed).toBe(1);
});

test("counts a failure outside the tests", () => {
  const passing = '<testcase name="a" classname="" time="0" />';
  expect(fileResult({ file, ok: false, xml: passing })).toEqual({
    passed: 1,
    failed: 1,
    skipped: [],
  });
});

test("names skipped tests in the last line only when there are any", () => {
  expect(resultText(singleResult(true))).toBe("1 passed, 0 failed");
  const total = addResults([singleResult(false), { passed: 2, failed: 0, skipped: ["a", "b"] }]);
  expect(resultText(total)).toBe("2 passed, 1 failed, 2 skipped");
});
