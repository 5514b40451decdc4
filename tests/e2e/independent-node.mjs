/**
 * The `live` vectors played by `ws` in Node: a client that shares no code with ours. Settings come
 * as JSON in its environment; a line `kill` asks for the gateway's death, one back says that it
 * runs again, and `done` is the end. The Python one beside it does the same.
 */
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";
import WebSocket from "ws";

const { url, vectors, names: given } = JSON.parse(process.env.INDEPENDENT ?? "{}");
const { live } = JSON.parse(await readFile(vectors, "utf8"));
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** A connection whose frames wait by their `op`. */
class Peer {
  #frames = [];
  #wake = () => undefined;

  async open() {
    this.socket = new WebSocket(url, ["isthmus.v1.json"]);
    this.ended = new Promise((resolve) => this.socket.on("close", resolve));
    this.socket.on("message", (data) => {
      this.#frames.push(JSON.parse(new TextDecoder().decode(data)));
      this.#wake();
    });
    await new Promise((resolve, reject) => this.socket.on("open", resolve).on("error", reject));
    this.socket.removeAllListeners("error").on("error", () => undefined);
  }

  async take(op) {
    const deadline = AbortSignal.timeout(20_000);
    for (;;) {
      const at = this.#frames.findIndex((frame) => frame.op === op);
      if (at >= 0) return this.#frames.splice(at, 1)[0];
      if (deadline.aborted) throw new Error(`no ${op}: ${JSON.stringify(this.#frames)}`);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 500);
      });
    }
  }
}

function filled(frame, names) {
  const known = (value) =>
    typeof value === "string" && names.has(value) ? names.get(value) : value;
  return Object.fromEntries(Object.entries(frame).map(([name, value]) => [name, known(value)]));
}

function check(expected, frame, names) {
  for (const [name, value] of Object.entries(expected)) {
    if (typeof value === "string" && value.startsWith("$") && !names.has(value)) {
      names.set(value, frame[name]);
    }
  }
  for (const [name, value] of Object.entries(filled(expected, names))) {
    if (isDeepStrictEqual(frame[name], value)) continue;
    throw new Error(`${name}: ${JSON.stringify(value)} was expected in ${JSON.stringify(frame)}`);
  }
}

for (const { steps } of live) {
  const names = new Map(Object.entries(given));
  let peer = new Peer();
  for (const step of steps) {
    if (step.open) await (peer = new Peer()).open();
    if (step.client) peer.socket.send(JSON.stringify(filled(step.client, names)));
    if (step.server) check(step.server, await peer.take(step.server.op), names);
    if (step.cut) peer.socket.terminate();
    if (step.kill) {
      process.stdout.write("kill\n");
      await answers.next();
    }
    if (step.cut || step.kill) await peer.ended;
  }
  peer.socket.terminate();
}
process.stdout.write("done\n");
process.exit(0);
