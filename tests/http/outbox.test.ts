/** The sending side of a socket over a real one, whose client reads by fits and starts. */
import { expect, test } from "bun:test";
import { Outbox } from "../../src/http/outbox.ts";
import { freePort, waitFor } from "../temporary.ts";
import { RawSocket } from "./socket-client.ts";

const FRAMES = 30_000;
const PAD = "x".repeat(600);
/** One frame, and a write of 32 KiB that the kernel had no room for. */
const BUFFERED_MAX = 34 * 1024;

test("a client that reads by fits and starts gets all in order, and little waits for it", async () => {
  const boxes: Outbox[] = [];
  const running: Promise<void>[] = [];
  let sent = 0;
  let most = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: await freePort(),
    fetch: (request, bun) =>
      bun.upgrade(request, { data: undefined }) ? undefined : new Response("", { status: 400 }),
    websocket: {
      backpressureLimit: 128 * 1024 * 1024,
      open(socket) {
        const outbox = new Outbox(socket);
        boxes.push(outbox);
        const run = async (): Promise<void> => {
          while (sent < FRAMES && outbox.isOpen) {
            await outbox.ready();
            const from = sent;
            sent += outbox.send(Math.min(256, FRAMES - from), (index) => `${from + index} ${PAD}`);
            most = Math.max(most, socket.getBufferedAmount());
            await new Promise(setImmediate);
          }
        };
        running.push(run());
      },
      message: () => undefined,
      drain: () => boxes[0]?.drained(),
      close: () => boxes[0]?.ended(),
    },
  });
  using client = new RawSocket(server.port ?? 0);
  await waitFor("the first frames have come", () => client.texts.length > 0);
  client.pause();
  let before = -1;
  await waitFor("nothing more is sent to a client that does not read", async () => {
    before = sent;
    await Bun.sleep(300);
    return sent === before;
  });
  expect(sent).toBeLessThan(FRAMES);
  for (let turn = 0; turn < 20; turn++) {
    client.resume();
    await Bun.sleep(5);
    client.pause();
    await Bun.sleep(5);
  }
  client.resume();
  await waitFor("all have come", () => client.texts.length === FRAMES);
  expect(client.texts.map((text) => Number(text.split(" ")[0]))).toEqual(
    Array.from({ length: FRAMES }, (_, n) => n),
  );
  expect(most).toBeLessThan(BUFFERED_MAX);
  await Promise.all(running);
  await server.stop(true);
});
