/**
 * Tells what a port speaks when a handshake has failed. AMQP 1.0 and 0-9-1 share a name and a port;
 * whoever gave the wrong kind of bridge is told which one is right.
 */
import { connect } from "node:net";
import { systemClock } from "../../src/clock.ts";

/** How long the port may take to greet. Milliseconds. */
const PROBE_WAIT_MS = 2000;
/** "AMQP", then a protocol and the version's three parts. */
const GREETING_BYTES = 8;
const HEADER_10 = Buffer.from("AMQP\0\x01\0\0", "latin1");
const HEADER_091 = Buffer.from("AMQP\0\0\x09\x01", "latin1");

/** Whether the port answers the greeting of AMQP 1.0 with that of 0-9-1; false when unsure. */
export async function speaksAmqp091(place: { host: string; port: number }): Promise<boolean> {
  const greeting = Promise.withResolvers<Buffer>();
  let received: Buffer = Buffer.alloc(0);
  const socket = connect(place);
  socket.on("connect", () => socket.write(HEADER_10));
  socket.on("data", (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
    if (received.byteLength >= GREETING_BYTES) greeting.resolve(received);
  });
  socket.on("error", () => greeting.resolve(received));
  socket.on("close", () => greeting.resolve(received));
  const waiting = new AbortController();
  const late = systemClock.sleep(PROBE_WAIT_MS, waiting.signal).then(() => received);
  const answer = await Promise.race([greeting.promise, late]);
  waiting.abort();
  socket.destroy();
  return answer.subarray(0, GREETING_BYTES).equals(HEADER_091);
}
