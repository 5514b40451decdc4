/** What a bridge does with a broker that breaks off at the wrong moment. */
import { describe, expect, test } from "bun:test";
import { amqp } from "../../../bridges/amqp/module.ts";
import { DisconnectedError } from "../../../src/errors.ts";
import { freePort } from "../../temporary.ts";

/** A method of class `connection` in a frame of channel 0. */
function method(id: number, args: readonly number[]): Uint8Array {
  const payload = [0, 10, 0, id, ...args];
  return Uint8Array.from([1, 0, 0, 0, 0, 0, payload.length, ...payload, 0xce]);
}

const text = (value: string): number[] => [...Buffer.from(value)];
const start = method(10, [0, 9, 0, 0, 0, 0, 0, 0, 0, 5, ...text("PLAIN"), 0, 0, 0, 0]);
const tune = method(30, [0, 0, 0, 2, 0, 0, 0, 0]);
const openOk = method(41, [0]);
const open = [0, 10, 0, 40];
/** 320 CONNECTION_FORCED: what a broker says that is being shut down. */
const close = method(50, [1, 64, 4, ...text("stop"), 0, 0, 0, 0]);

/** A broker that goes through the handshake and ends it with these bytes at once. */
async function fake(last: Uint8Array): Promise<{ url: string; stop: () => Promise<void> }> {
  const steps = [start, tune];
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: await freePort(),
    socket: {
      data(socket, bytes) {
        const answer = bytes.includes(Buffer.from(open)) ? last : steps.shift();
        if (answer !== undefined) socket.write(answer);
      },
    },
  });
  return {
    url: `amqp://127.0.0.1:${server.port}`,
    stop: () => Promise.resolve(server.stop(true)),
  };
}

describe("a broker that breaks off", () => {
  test("in the same breath in which it opens the connection is an outage", async () => {
    const { url, stop } = await fake(Buffer.concat([openOk, close]));
    const opening = amqp.connect(amqp.parseConfig({ url }), {
      name: "rabbit",
      resolve: (value) => Promise.resolve(value),
      signal: new AbortController().signal,
    });
    await expect(opening).rejects.toBeInstanceOf(DisconnectedError);
    await stop();
  });
});
