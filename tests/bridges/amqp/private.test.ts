/**
 * What only a RabbitMQ of the test's own can show: its memory alarm, logins by certificate, and
 * the gateway as a whole while queues go away and processes are killed.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect, type ChannelModel, type ConfirmChannel } from "amqplib";
import { DisconnectedError } from "../../../src/errors.ts";
import { missingBroker } from "../../brokers/broker.ts";
import { TestGateway } from "../../e2e/gateway.ts";
import { freePort, waitFor } from "../../temporary.ts";
import { rabbitNode, type RabbitNode } from "../rabbitmq-node.ts";
import { message, next, open, send, sinkTo, sourceOf } from "./support.ts";

/** An authority, a server's certificate and one whose name is a user of the broker. */
function makeCertificates(folder: string): void {
  const run = (...args: string[]): void => {
    execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  };
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  run(
    "req",
    "-x509",
    ...curve,
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-subj",
    "/CN=tests",
    "-days",
    "2",
  );
  for (const name of ["localhost", "guest", "stranger"]) {
    run("req", ...curve, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    const signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    run(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      ...signed,
      "-extfile",
      "names",
      "-out",
      `${name}.pem`,
    );
  }
}

describe.skipIf(missingBroker("amqp") !== null)("a RabbitMQ of one's own", () => {
  let node: RabbitNode;
  let model: ChannelModel;
  let channel: ConfirmChannel;
  let tlsPort: number;
  let folder: string;

  beforeAll(async () => {
    tlsPort = await freePort();
    node = await rabbitNode({
      plugins: ["rabbitmq_auth_mechanism_ssl"],
      config: async (path) => {
        folder = path;
        await writeFile(join(path, "names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
        makeCertificates(path);
        return [
          `listeners.ssl.1 = 127.0.0.1:${tlsPort}`,
          `ssl_options.cacertfile = ${path}/ca.pem`,
          `ssl_options.certfile = ${path}/localhost.pem`,
          `ssl_options.keyfile = ${path}/localhost.key`,
          "ssl_options.verify = verify_peer",
          "ssl_options.fail_if_no_peer_cert = true",
          "ssl_cert_login_from = common_name",
          "auth_mechanisms.1 = EXTERNAL",
          "auth_mechanisms.2 = PLAIN",
        ];
      },
    });
    model = await connect(node.url);
    channel = await model.createConfirmChannel();
  }, 120_000);

  afterAll(async () => {
    await model.close();
    await node[Symbol.asyncDispose]();
  });

  test("logs in by a certificate alone, and tells one that is no user", async () => {
    const text = (name: string): Promise<string> => readFile(join(folder, name), "utf8");
    const document = async (name: string): Promise<Record<string, unknown>> => ({
      url: `amqps://localhost:${tlsPort}`,
      sasl: "external",
      tls: {
        ca: await text("ca.pem"),
        cert: await text(`${name}.pem`),
        key: await text(`${name}.key`),
      },
    });
    await channel.assertQueue("by-certificate");
    const bridge = await open(await document("guest"));
    const queue = "by-certificate";
    expect(await send(await sinkTo(bridge, { queue }), { queue })).toEqual([{ sent: null }]);
    await bridge[Symbol.asyncDispose]();
    const refused = open(await document("stranger"));
    await expect(refused).rejects.toBeInstanceOf(DisconnectedError);
    await expect(refused).rejects.toThrow("ACCESS");
  });

  test("waits while the broker is short of memory, says why, and goes on", async () => {
    const queue = "alarmed";
    await channel.assertQueue(queue);
    const bridge = await open({ url: node.url });
    const sink = await sinkTo(bridge, { queue });
    expect(await send(sink, { queue })).toEqual([{ sent: null }]);
    await node.ctl("set_vm_memory_high_watermark", "0.000001");
    // The one that meets the alarm stays unanswered until it is over; the others are told.
    const first = send(sink, { queue });
    const told = await waitFor("it is told", async () => {
      const outcomes = await sink.send(
        [{ message: message(), fields: { queue } }],
        AbortSignal.timeout(200),
      );
      const [outcome] = outcomes;
      return outcome !== undefined && "busyMs" in outcome ? outcome : null;
    });
    expect(told.reason).toMatch(/takes no messages for now: .*low on memory/);
    // Reading has a connection of its own, which the alarm does not stop.
    const source = await sourceOf(bridge, { queue });
    await (await next(source)).ack();
    await node.ctl("set_vm_memory_high_watermark", "0.8");
    expect(await first).toEqual([{ sent: null }]);
    await waitFor("it goes on", async () => "sent" in ((await send(sink, { queue }))[0] ?? {}));
    await bridge[Symbol.asyncDispose]();
  }, 120_000);

  test("says that a queue was deleted, and goes on when it is there again", async () => {
    const queue = "comes-and-goes";
    await channel.assertQueue(queue);
    await using gateway = await TestGateway.start();
    await gateway.apply({
      bridges: { rabbit: { kind: "amqp", url: node.url } },
      sources: { q: { from: { bridge: "rabbit", queue }, stream: "in" } },
    });
    await gateway.sourceRuns("q");
    await channel.deleteQueue(queue);
    const error = await waitFor("the source says so", async () => {
      const { status } = await gateway.json<{ status: { error: string | null } }>("/api/sources/q");
      return status.error?.includes("does not exist") === true ? status.error : null;
    });
    expect(error).toContain(queue);
    await channel.assertQueue(queue);
    channel.sendToQueue(queue, Buffer.from("back"), { persistent: true });
    await waitFor("it goes on", async () => (await gateway.read("in")).length === 1, {
      timeoutMs: 60_000,
    });
  }, 120_000);

  test("has each message of a stream queue once in the log through kill -9", async () => {
    const queue = "streamed";
    await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "stream" } });
    const sent: string[] = [];
    const publish = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index++) {
        const body = `m${sent.length}`;
        sent.push(body);
        channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
      }
      await channel.waitForConfirms();
    };
    await publish(500);
    await using gateway = await TestGateway.start();
    await gateway.apply({
      bridges: { rabbit: { kind: "amqp", url: node.url } },
      sources: { q: { from: { bridge: "rabbit", queue }, stream: "in", start: "earliest" } },
    });
    for (let kill = 0; kill < 4; kill++) {
      await waitFor("some are in", async () => (await gateway.read("in")).length > kill * 300);
      await gateway.kill();
      await publish(300);
      await gateway.start();
    }
    await waitFor("all are in", async () => (await gateway.read("in")).length >= sent.length);
    expect((await gateway.read("in")).map(({ body }) => body)).toEqual(sent);
  }, 180_000);
});
