/** A program that reads by a durable name and prints each body; made to be killed. */
import { connect } from "../../src/client/client.ts";

const client = connect({
  url: process.env["READER_URL"] ?? "",
  token: process.env["READER_TOKEN"] ?? "",
});
for await (const { body } of client.subscribe("orders", { name: "phone", from: "earliest" })) {
  process.stdout.write(`${String(body)}\n`);
}
