/**
 * What the bench's gateway is attacked with, as a process of its own until it is ended: headers
 * and bodies that never come to an end, bodies over the limit, bombs of gzip, malformed requests.
 * The arguments are the port, a verified hook, and an open one that inflates.
 */
import { RawClient, requestBytes } from "../http/raw-client.ts";

const SLOW_HEADERS = 200;
const SLOW_BODIES = 100;
const STEP_MS = 500;
/** Each tick sends one of each kind of request that ends at once. Milliseconds. */
const TICK_MS = 20;
const BOMB_BYTES = 32 * 1024 * 1024;
const CHUNK = Buffer.from(`10000\r\n${"x".repeat(65_536)}\r\n`);

const [, , portText, verified = "", open = ""] = process.argv;
const port = Number(portText);
const bomb = Bun.gzipSync(new Uint8Array(BOMB_BYTES));
const gzip = { "content-encoding": "gzip", "content-type": "application/json" };
const POST = `POST /hooks/${verified} HTTP/1.1\r\nHost: x\r\n`;

const MALFORMED = [
  `${POST}Content-Length: -1\r\n\r\nx`,
  `${POST}X-A : a\r\n\r\n`,
  `${POST}Transfer-Encoding: chunked\r\n\r\nz\r\n`,
  `GET /${"a".repeat(65_536)} HTTP/1.1\r\nHost: x\r\n\r\n`,
  `${POST}${"X-A: b\r\n".repeat(300)}\r\n`,
  "\0\0\0\0garbage\r\n\r\n",
];

/** A connection that gives one byte now and then, and is opened again when it is closed. */
function dripping(start: string): () => void {
  let client: RawClient | null = null;
  return () => {
    if (client === null || client.isClosed) {
      client = new RawClient(port);
      client.write(start);
    } else client.write("a");
  };
}

async function once(bytes: Uint8Array): Promise<void> {
  using client = new RawClient(port);
  await Promise.race([client.ask(bytes), Bun.sleep(STEP_MS)]);
}

/** Chunks without end: the gateway has to stop it. */
async function endless(): Promise<void> {
  using client = new RawClient(port);
  client.write(`${POST}Transfer-Encoding: chunked\r\n\r\n`);
  for (let sent = 0; sent < 300 && !client.isClosed; sent++) {
    client.write(CHUNK);
    await Bun.sleep(1);
  }
}

const drips = [
  ...Array.from({ length: SLOW_HEADERS }, () => dripping(`${POST}X-Slow: `)),
  ...Array.from({ length: SLOW_BODIES }, () => dripping(`${POST}Content-Length: 100000\r\n\r\n`)),
];
/** A task that fails ends the attack, which the bench then tells. */
function own(task: Promise<void>): void {
  task.catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}

for (let tick = 0; ; tick++) {
  const share = Math.ceil((drips.length * TICK_MS) / STEP_MS);
  for (let index = 0; index < share; index++) drips[(tick * share + index) % drips.length]?.();
  own(once(Buffer.from(MALFORMED[tick % MALFORMED.length] ?? "")));
  if (tick % 10 === 0) {
    own(once(requestBytes({ target: `/hooks/${verified}`, headers: gzip, body: bomb })));
    own(once(requestBytes({ target: `/hooks/${open}`, headers: gzip, body: bomb })));
    own(once(Buffer.from(`${POST}Content-Length: 999999999\r\n\r\n`)));
  }
  if (tick % 50 === 0) own(endless());
  await Bun.sleep(TICK_MS);
}
