/**
 * Tells what a port speaks when a handshake has failed. AMQP 0-9-1 and 1.0 share a name and a port,
 * and the client library takes the other's greeting for a broken frame; whoever gave the wrong kind
 * of bridge is told which one is right.
 */
import { connect } from "node:net";
import { systemClock } from "../../src/clock.ts";

/** How long the port may take to greet. Milliseconds. */
const PROBE_WAIT_MS = 2000;
/** "AMQP", then protocol 0 or 3 (SASL), and version 1.0.0. */
const GREETING_BYTES = 8;
const HEADER_091 = Buffer.from("AMQP\0\0\x09\x01", "latin1");

/** Whether the port answers the greeting of AMQP 0-9-1 with that of AMQP 1.0; false when unsure. */
export async function speaksAmqp1(place: { host: string; port: number }): Promise<boolean> {
  const greeting = Promise.withResolvers<Buffer>();
  let received: Buffer = Buffer.alloc(0);
  const socket = connect(place);
  socket.on("connect", () => socket.write(HEADER_091));
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
  return answer.subarray(0, 4).toString("latin1") === "AMQP" && answer[5] === 1 && answer[6] === 0;
}
