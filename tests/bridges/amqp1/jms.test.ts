/**
 * A real JMS application at both ends: what it sends to Artemis goes through the gateway to Kafka,
 * is read from there, goes back to Artemis, and the application sees the same messages, down to
 * the types of properties and of what stands in a map.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { ensurePrograms, findProgram, missingPrograms } from "../../brokers/programs.ts";
import { qpidJmsClassPath, qpidJmsPrograms } from "../../brokers/qpid-jms.ts";
import { makeTopic, runProgram } from "../../e2e/clients.ts";
import { TestGateway } from "../../e2e/gateway.ts";

const run = `${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
const programs = qpidJmsPrograms();
const lacks = missingBroker("amqp1") ?? missingBroker("kafka") ?? missingPrograms(programs);
const why = lacks === null ? "" : ` (${lacks})`;
/** Kinds of messages that the application sends, some of them twice. Count. */
const MESSAGES = 8;

test.skipIf(lacks !== null)(
  `a JMS application sees its messages unchanged after a way over Kafka${why}`,
  async () => {
    await ensurePrograms(programs);
    const classPath = await qpidJmsClassPath();
    const [{ url: jms }, { url: kafka }] = [await broker("amqp1"), await broker("kafka")];
    await using gateway = await TestGateway.start();
    const [input, output, topic] = [`jms-in-${run}`, `jms-out-${run}`, `jms-${run}`];
    await makeTopic(kafka, topic);
    const start = "earliest";
    await gateway.apply({
      bridges: { jms: { kind: "amqp1", url: jms }, eu: { kind: "kafka", urls: [kafka] } },
      sources: {
        app: { from: { bridge: "jms", queue: input, create: true }, stream: "there" },
        eu: { from: { bridge: "eu", topic }, stream: "back", start },
      },
      rules: {
        there: { from: "there", start, to: { bridge: "eu", topic } },
        back: { from: "back", start, to: { bridge: "jms", queue: output, create: true } },
      },
    });
    for (const source of ["app", "eu"]) await gateway.sourceRuns(source);
    const program = join(import.meta.dir, "Jms.java");
    const flags = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"];
    const printed = await runProgram([
      findProgram("java"),
      ...flags,
      "-cp",
      classPath,
      program,
      `${jms}?jms.deserializationPolicy.allowList=*`,
      input,
      output,
    ]);
    const [sent, back] = printed.split("==\n").map(messagesOf);
    expect(sent).toHaveLength(MESSAGES);
    expect<unknown>(back).toEqual(sent);
    for (const rule of ["there", "back"]) expect(await gateway.read(`${rule}.dead`)).toEqual([]);
  },
  120_000,
);

/** The lines of each message. */
function messagesOf(text: string): readonly (readonly string[])[] {
  return text
    .split("\n--\n")
    .filter((each) => each.trim() !== "")
    .map((each) => each.trim().split("\n"));
}
