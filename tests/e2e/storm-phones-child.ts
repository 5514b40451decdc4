/**
 * A process with a few durable names that is made to be killed: what a loop was given is in the
 * file before it is acked, as one line `NAME PARTITION OFFSET`.
 */
import { appendFileSync } from "node:fs";
import { connect } from "../../src/client/client.ts";

const { url, token, file, names } = JSON.parse(process.env["PHONES"] ?? "{}") as {
  readonly url: string;
  readonly token: string;
  readonly file: string;
  readonly names: readonly string[];
};

async function run(name: string): Promise<void> {
  const client = connect({
    url,
    token,
    tuning: { minMs: 20, maxMs: 500, pingMs: 500, deadMs: 2000 },
  });
  const messages = client.subscribe("orders", { name, from: "earliest", window: 16 });
  for await (const { partition, offset } of messages) {
    appendFileSync(file, `${name} ${partition} ${offset}\n`);
  }
}

await Promise.all(names.map(run));
