/** What connecting says about a port where no AMQP 1.0 is spoken. */
import { expect, test } from "bun:test";
import type { Socket } from "bun";
import { amqp1 } from "../../../bridges/amqp1/module.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { freePort } from "../../temporary.ts";

/** How a port answers what it is sent, or the connection alone. */
interface Manners {
  readonly greets?: string;
  readonly answers?: string;
  readonly ends?: boolean;
}

/** The error of a bridge that connects there. */
async function refusal({ greets, answers, ends = false }: Manners): Promise<unknown> {
  const port = await freePort();
  const say = (socket: Socket, text: string | undefined): void => {
    if (text !== undefined) socket.write(Buffer.from(text, "latin1"));
    if (ends) socket.end();
  };
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (socket) => (answers === undefined ? say(socket, greets) : undefined),
      data: (socket) => (answers === undefined ? undefined : say(socket, answers)),
    },
  });
  try {
    const config = amqp1.parseConfig({ url: `amqp://127.0.0.1:${port}` });
    const signal = new AbortController().signal;
    const context = { name: "b", resolve: (text: string) => Promise.resolve(text), signal };
    return await amqp1.connect(config, context).then(
      () => null,
      (error: unknown) => error,
    );
  } finally {
    server.stop(true);
  }
}

test("a broker of AMQP 0-9-1 is told by the name of its kind, whether it hangs up or not", async () => {
  for (const ends of [true, false]) {
    const error = await refusal({ answers: "AMQP\0\0\u0009\u0001", ends });
    expect(error).toBeInstanceOf(InvalidError);
    expect(String(error)).toContain("a broker of AMQP 0-9-1 is a bridge of kind amqp");
  }
});

test("a port that hangs up is a broker that is away", async () => {
  const error = await refusal({ ends: true });
  expect(error).toBeInstanceOf(DisconnectedError);
  expect(String(error)).toContain("closed the connection");
});

test("a port of another protocol is told at once, with what it said", async () => {
  for (const greets of ["220 mail.example ESMTP\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"]) {
    const error = await refusal({ greets, ends: true });
    expect(error).toBeInstanceOf(DisconnectedError);
    expect(String(error)).toContain("does not speak AMQP 1.0");
  }
});
