/**
 * Clients that others wrote, against the gateway that users run: `ws` in Node and `websockets` in
 * Python play the `live` vectors over a cut and a kill, and Chromium's EventSource reads on after
 * a kill. What holds for them does not hang on our own client.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { chromium, Page } from "../client/chromium.ts";
import { waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";
import { mustSkip, pypiTools } from "./pypi.ts";

const vectors = join(import.meta.dir, "../../docs/protocol-vectors.json");
const node = Bun.which("node");
const tools = await pypiTools();
const why = tools.missing === null ? "" : ` (${tools.missing})`;

/** Runs a client; kills the gateway and starts it again each time the client asks for it. */
async function play(command: readonly string[], env: Record<string, string> = {}): Promise<void> {
  await using gateway = await TestGateway.start();
  const names = { $token: gateway.token, $stream: "live", $client: command.join(" ").slice(-50) };
  const url = `${gateway.url.replace("http", "ws")}/socket`;
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...env, INDEPENDENT: JSON.stringify({ url, vectors, names }) },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  const errors = new Response(child.stderr).text();
  const lines: string[] = [];
  for await (const line of createInterface({ input: Readable.fromWeb(child.stdout as never) })) {
    lines.push(line);
    if (line !== "kill") continue;
    await gateway.kill();
    await gateway.start();
    await child.stdin.write("again\n");
    await child.stdin.flush();
  }
  const code = await child.exited;
  expect({ lines, errors: await errors, code }).toEqual({
    lines: ["kill", "done"],
    errors: "",
    code: 0,
  });
}

test.skipIf(node === null)(
  "ws in Node plays the live vectors over a cut and a kill",
  () => play([node ?? "", join(import.meta.dir, "independent-node.mjs")]),
  120_000,
);

test.skipIf(mustSkip(tools))(
  `websockets in Python plays the live vectors over a cut and a kill${why}`,
  async () => {
    if (tools.missing !== null) throw new Error(tools.missing);
    const script = join(import.meta.dir, "independent-python.py");
    await play([tools.python, script], { PYTHONPATH: tools.folder, PYTHONDONTWRITEBYTECODE: "1" });
  },
  120_000,
);

/** A page's program: reads by EventSource, each time with a ticket of its own, from its last id. */
const program = (token: string) => `
  window.seen = [];
  window.opened = 0;
  let last = "earliest";
  async function read() {
    const headers = { authorization: "Bearer ${token}" };
    const answer = await fetch("/api/tickets", { method: "POST", headers }).catch(() => null);
    if (answer === null || !answer.ok) return setTimeout(read, 100);
    const { ticket } = await answer.json();
    const source = new EventSource(
      "/streams/live/events?from=" + encodeURIComponent(last) + "&ticket=" + ticket,
    );
    source.onopen = () => window.opened++;
    source.addEventListener("message", ({ data, lastEventId }) => {
      last = lastEventId;
      window.seen.push(JSON.parse(data).body);
    });
    source.onerror = () => {
      source.close();
      setTimeout(read, 100);
    };
  }
  read();
`;

test.skipIf(chromium === null)(
  "EventSource in Chromium reads on with tickets after a kill, each message once",
  async () => {
    await using gateway = await TestGateway.start();
    const publish = async (body: string): Promise<void> => {
      await gateway.json("/streams/live/messages", { method: "POST", body });
    };
    for (const body of ["1", "2"]) await publish(body);
    await using page = await Page.open(chromium ?? "");
    // Any page of the gateway's own host.
    await page.call("Page.navigate", { url: `${gateway.url}/health/live` });
    await waitFor("the page is there", () => page.value(`location.pathname === "/health/live"`));
    await page.value(program(gateway.token));
    await waitFor("two have come", async () => (await page.value("seen.length")) === 2);
    await gateway.kill();
    await gateway.start();
    await publish("3");
    await waitFor("the third has come", async () => (await page.value("seen.length")) === 3);
    expect(await page.value("seen")).toEqual(["1", "2", "3"]);
    expect(await page.value("opened")).toBe(2);
  },
  120_000,
);
