/** The AMQP documents and addresses: what is taken, and what is said of what is not. */
import { describe, expect, test } from "bun:test";
import { amqp } from "../../../bridges/amqp/module.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { freePort } from "../../temporary.ts";

function pointers(run: () => unknown): string[] {
  try {
    run();
    return [];
  } catch (error) {
    if (error instanceof InvalidError) return error.errors.map((detail) => detail.pointer);
    throw error;
  }
}

describe("the document of an amqp bridge", () => {
  test("has a heartbeat of 10 s by default and keeps references unresolved", () => {
    expect(amqp.parseConfig({ url: "amqp://${env:HOST}" })).toEqual({
      urls: ["amqp://${env:HOST}"],
      heartbeatMs: 10_000,
    });
  });

  test("is refused with a pointer to what is wrong", () => {
    expect(pointers(() => amqp.parseConfig({}))).toEqual(["/url"]);
    expect(pointers(() => amqp.parseConfig({ url: "http://a" }))).toEqual(["/url"]);
    expect(pointers(() => amqp.parseConfig({ urls: ["amqp://a", "x"] }))).toEqual(["/urls/1"]);
    expect(pointers(() => amqp.parseConfig({ url: "amqp://a", vhosts: "/" }))).toEqual(["/vhosts"]);
  });
});

describe("a login by certificate", () => {
  test("needs a certificate", () => {
    const url = "amqps://a";
    const tls = { cert: "${file:/c}", key: "${file:/k}" };
    expect(amqp.parseConfig({ url, sasl: "external", tls }).sasl).toBe("external");
    expect(pointers(() => amqp.parseConfig({ url, sasl: "external" }))).toEqual(["/sasl"]);
    expect(pointers(() => amqp.parseConfig({ url, sasl: "external", tls: true }))).toEqual([
      "/sasl",
    ]);
    expect(pointers(() => amqp.parseConfig({ url, sasl: "scram" }))).toEqual(["/sasl"]);
  });
});

describe("an address of an amqp bridge", () => {
  const source = (input: Record<string, unknown>) => amqp.parseAddress(input, "source");
  const sink = (input: Record<string, unknown>) => amqp.parseAddress(input, "sink");

  test("is a queue, or an exchange with the keys that are bound", () => {
    expect(source({ queue: "q" }).text).toBe("queue q");
    expect(source({ exchange: "e" })).toEqual({
      text: "exchange e by #",
      fields: { exchange: "e", bind: ["#"] },
    });
    const bind = ["a.*", { headers: { region: "eu" }, match: "any" }];
    expect(source({ exchange: "e", bind })).toEqual({
      text: 'exchange e by a.*, {"headers":{"region":"eu"},"match":"any"}',
      fields: { exchange: "e", bind },
    });
    expect(source({ queue: "q", create: { type: "stream" } }).text).toBe("queue q");
  });

  test("of a sink is mandatory unless it says otherwise, and may hold templates", () => {
    const address = sink({ exchange: "orders", routingKey: "orders.${body.region}" });
    expect(address).toEqual({
      text: "exchange orders key orders.${body.region}",
      fields: { exchange: "orders", routingKey: "orders.${body.region}", mandatory: true },
    });
    expect(sink({ exchange: "", routingKey: "q" }).text).toBe("default exchange key q");
    expect(sink({ exchange: "e", mandatory: false }).text).toBe("exchange e (not mandatory)");
  });

  test("is refused with a pointer to what does not go together", () => {
    expect(pointers(() => sink({}))).toEqual(["/queue"]);
    expect(pointers(() => sink({ queue: "a", exchange: "b" }))).toEqual(["/queue"]);
    expect(pointers(() => sink({ queue: "a", routingKey: "b" }))).toEqual(["/routingKey"]);
    expect(pointers(() => source({ queue: "a", bind: ["#"] }))).toEqual(["/bind"]);
    expect(pointers(() => source({ queue: "${body.a}" }))).toEqual(["/queue"]);
    expect(pointers(() => source({ exchange: "a", routingKey: "b" }))).toEqual(["/routingKey"]);
  });

  test("guards the separators and wildcards of a routing key", () => {
    expect(amqp.addressSpecials).toEqual({ routingKey: ".*#" });
  });
});

describe("connecting to something else", () => {
  const context = {
    name: "b",
    resolve: (text: string) => Promise.resolve(text),
    signal: new AbortController().signal,
  };

  async function failure(answer: string): Promise<unknown> {
    const port = await freePort();
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port,
      socket: {
        data(socket) {
          socket.end(Buffer.from(answer, "latin1"));
        },
      },
    });
    try {
      const config = amqp.parseConfig({ url: `amqp://127.0.0.1:${port}` });
      return await amqp.connect(config, context).then(
        () => null,
        (error: unknown) => error,
      );
    } finally {
      server.stop(true);
    }
  }

  test("names the right kind when the broker speaks AMQP 1.0", async () => {
    for (const answer of ["AMQP\0\x01\0\0", "AMQP\x03\x01\0\0"]) {
      const error = await failure(answer);
      expect(error).toBeInstanceOf(InvalidError);
      expect((error as InvalidError).message).toContain("kind amqp1");
    }
  });

  test("is an outage when it is anything else", async () => {
    expect(await failure("HTTP/1.1 400 Bad Request\r\n\r\n")).toBeInstanceOf(DisconnectedError);
  });

  test("tells a % in the URL that means nothing", async () => {
    const config = amqp.parseConfig({ url: "amqp://a%zz@127.0.0.1:9" });
    const error = await amqp.connect(config, context).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidError);
  });
});
