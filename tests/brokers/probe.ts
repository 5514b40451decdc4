/**
 * Readiness, asked in each broker's own protocol with one hand-made request: a port that is open
 * says only that somebody listens. No client library is involved, so its faults can't hide here.
 */
import { connect } from "node:net";

const answerMsMax = 3_000;

/** One question to a port, and how to know from the bytes so far that the answer is a yes. */
export interface Probe {
  readonly port: number;
  readonly request: Uint8Array;
  /** True: ready. False: not ready. Null: more bytes are needed. */
  judge(answer: Buffer): boolean | null;
}

/** Asks once. No connection, no answer in time and a wrong answer are all "not ready". */
export function isReady(probe: Probe): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let answer: Buffer = Buffer.alloc(0);
  const socket = connect({ host: "127.0.0.1", port: probe.port });
  const end = (ready: boolean): void => {
    socket.destroy();
    resolve(ready);
  };
  socket.setTimeout(answerMsMax, () => end(false));
  socket.once("connect", () => socket.write(probe.request));
  socket.on("data", (bytes: Buffer) => {
    answer = Buffer.concat([answer, bytes]);
    const verdict = probe.judge(answer);
    if (verdict !== null) end(verdict);
  });
  socket.once("error", () => end(false));
  socket.once("close", () => end(false));
  return promise;
}
