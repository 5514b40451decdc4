/**
 * Behaviours of a module before it is connected: its documents, and an address without a broker.
 */
import { expect } from "bun:test";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import type { Case } from "./bridge.ts";
import { settles } from "./session.ts";

export const documentBehaviours: readonly Case[] = [
  {
    name: "names the nearest key for an unknown one",
    run: async (_session, { module, config }) => {
      const document = { ...((await config()) as object), usernam: "x" };
      const error = thrownBy(() => module.parseConfig(document));
      expect(error).toBeInstanceOf(InvalidError);
      const detail = (error as InvalidError).errors.find((item) => item.pointer === "/usernam");
      expect(detail?.detail).toContain("username");
    },
  },
  {
    name: "says in plain words that nobody listens",
    run: async (session, { deadConfig }) => {
      const error = await settles(
        "connect",
        session.connect(deadConfig).then(
          () => null,
          (thrown: unknown) => thrown,
        ),
      );
      expect(error).toBeInstanceOf(DisconnectedError);
      const { message } = error as DisconnectedError;
      expect(message).toMatch(/127\.0\.0\.1:\d+ refused the connection/);
      expect(message).not.toContain("\n");
    },
  },
];

function thrownBy(run: () => unknown): unknown {
  try {
    run();
    return null;
  } catch (error) {
    return error;
  }
}
