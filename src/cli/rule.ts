/**
 * `isthmus rule …`: test rules in files, preview a draft on recorded messages, see why a message
 * matched, and go through a rule's revisions and back. What each does is in the file of its name.
 */
import type { Command } from "commander";
import { withConnection } from "./connection.ts";
import { countOf } from "./read.ts";
import { ruleDiff, ruleHistory, ruleRollback } from "./rule-history.ts";
import { ruleExplain } from "./rule-explain.ts";
import { rulePreview } from "./rule-preview.ts";
import type { RuleTestFlags } from "./rule-test.ts";

export function registerRule(program: Command): void {
  const rule = program
    .command("rule")
    .summary("test, preview, explain rules; their history, and the way back")
    .description("Change rules as safely as code: test, preview, see what was, go back.")
    .addHelpText(
      "after",
      `
Examples:
  isthmus rule test -f examples/orders.test.yaml
  isthmus rule preview big-orders -f draft.yaml --last 1h`,
    );
  registerChecks(rule);
  registerPast(rule);
}

function registerChecks(rule: Command): void {
  const test = rule
    .command("test")
    .summary("run tests of rules from a file")
    .description(
      "Run tests of rules: for a message, which rules match, and exactly what goes where. With " +
        "`definitions: FILE` in the test file no gateway is needed; without it, or with --server, " +
        "the rules are a running gateway's. Ends with 1 when a test fails.",
    )
    .requiredOption("-f, --file <file>", "the file with the tests; - reads standard input")
    .addHelpText("after", "\nExample:\n  isthmus rule test -f examples/orders.test.yaml");
  withConnection(test).action(async (flags: RuleTestFlags) => {
    // Loaded here: with it comes what runs rules.
    const { ruleTest } = await import("./rule-test.ts");
    await ruleTest(flags);
  });
  const preview = rule
    .command("preview")
    .summary("run a draft over recorded messages, without sending")
    .description(
      "Run a draft and the live rule over recorded messages: what would be newly matched, no " +
        "longer matched, changed or refused. Nothing is sent. Places are as in `isthmus read`.",
    )
    .argument("<name>", "the rule; a new one may be named too")
    .requiredOption("-f, --file <file>", "the draft: the rule's document, or a definitions file")
    .option("--last <duration>", "messages so young (default: 1h, when no --from is given)")
    .option("--from <place>", "where to begin")
    .option("--to <place>", "where to end (default: the stream's end)")
    .option("--limit <n>", "no more than so many messages", countOf("--limit", 1))
    .addHelpText(
      "after",
      `
Examples:
  isthmus rule preview big-orders -f draft.yaml --last 1h
  isthmus rule preview big-orders -f shop.yaml --from earliest --limit 5000 --json`,
    );
  withConnection(preview).action(rulePreview);
  const explain = rule
    .command("explain")
    .summary("say which rules take a message, and why")
    .description(
      "Say for each rule of a stream whether it takes a message, the first part of its condition " +
        "that said no, with values, and what each target would get.",
    )
    .argument("<stream>", "the stream")
    .argument("<place>", "PARTITION/OFFSET, or OFFSET in partition 0")
    .option("--rule <name>", "only this rule")
    .addHelpText("after", "\nExample:\n  isthmus rule explain orders 0/17");
  withConnection(explain).action(ruleExplain);
}

function registerPast(rule: Command): void {
  const history = rule
    .command("history")
    .summary("list a rule's revisions: who, when, why")
    .description("List a rule's revisions, newest first: who made each, when, and why.")
    .argument("<name>", "the rule")
    .addHelpText("after", "\nExample:\n  isthmus rule history big-orders");
  withConnection(history).action(ruleHistory);
  const diff = rule
    .command("diff")
    .summary("show what changed between two revisions")
    .description(
      "Show what changed from revision A to B, line by line. With A alone: from A to the newest; " +
        "with neither: the latest change.",
    )
    .argument("<name>", "the rule")
    .argument("[a]", "a revision", countOf("A", 1))
    .argument("[b]", "a later one", countOf("B", 1))
    .addHelpText("after", "\nExample:\n  isthmus rule diff big-orders 3 5");
  withConnection(diff).action(ruleDiff);
  const rollback = rule
    .command("rollback")
    .summary("put an earlier revision's document in place")
    .description(
      "Put an earlier document in place, as a new revision. What another changed meanwhile is not " +
        "overwritten.",
    )
    .argument("<name>", "the rule")
    .option("--to <n>", "the revision (default: what stood before)", countOf("--to", 1))
    .option("--why <text>", "why, for the record")
    .addHelpText(
      "after",
      '\nExample:\n  isthmus rule rollback big-orders --to 3 --why "too many mails"',
    );
  withConnection(rollback).action(ruleRollback);
}
