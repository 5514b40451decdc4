/** What a bridge says of a broker that answers a connect with no, or breaks off. */
import { describe, expect, test } from "bun:test";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { freePort } from "../../temporary.ts";

const never = new AbortController().signal;

/** A broker that answers a connect with these bytes and closes when it is told to. */
async function fake(bytes: readonly number[]): Promise<{ url: string; stop: () => void }> {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: await freePort(),
    socket: { data: (socket) => void socket.end(Uint8Array.from(bytes)) },
  });
  return { url: `mqtt://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

describe("a broker that says no", () => {
  const context = {
    name: "plant",
    resolve: (text: string) => Promise.resolve(text),
    signal: never,
  };

  async function failure(document: Record<string, unknown>): Promise<Error> {
    const thrown = await mqtt.connect(mqtt.parseConfig(document), context).then(
      () => null,
      (error: unknown) => error,
    );
    if (thrown instanceof Error) return thrown;
    throw new Error("it connected");
  }

  test("to the version is told in plain words, with what to give instead", async () => {
    for (const [version, answer, other] of [
      [5, [0x20, 3, 0, 0x84, 0], "3.1.1"],
      ["3.1.1", [0x20, 2, 0, 1], "5"],
    ] as const) {
      const { url, stop } = await fake(answer);
      const error = await failure({ url, version });
      expect(error).toBeInstanceOf(InvalidError);
      expect(error.message).toContain(`give version: ${other}`);
      stop();
    }
  });

  test("by closing without a word is an outage, with a hint at the version", async () => {
    const { url, stop } = await fake([]);
    const error = await failure({ url });
    expect(error).toBeInstanceOf(DisconnectedError);
    expect(error.message).toContain("needs version: 3.1.1");
    stop();
  });

  test("to the login is an outage that says so", async () => {
    const { url, stop } = await fake([0x20, 3, 0, 0x86, 0]);
    const error = await failure({ url, username: "a", password: "b" });
    expect(error).toBeInstanceOf(DisconnectedError);
    expect(error.message).toContain("Bad User Name or Password");
    stop();
  });

  test("when another client takes the connection over is named as the reason", async () => {
    const { url, stop } = await fake([0x20, 3, 0, 0, 0, 0xe0, 2, 0x8e, 0]);
    const bridge = await mqtt.connect(mqtt.parseConfig({ url }), context);
    expect((await bridge.closed)?.message).toContain("another client took over");
    await bridge[Symbol.asyncDispose]();
    stop();
  });
});
