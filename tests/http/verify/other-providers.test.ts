/**
 * The page's own hooks for providers that have no scheme, as they stand there: their handshake is
 * given back as they want it, and what they sign is taken.
 */
import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { join } from "node:path";
import type { Json } from "../../../src/rules/document.ts";
import { SECRET, verifiedServer } from "./server.ts";

type Hooks = Readonly<Record<string, Readonly<Record<string, Json>>>>;

async function hooksOfThePage(): Promise<Hooks> {
  const text = await Bun.file(join(import.meta.dir, "../../../docs/webhooks.md")).text();
  const section = text.slice(text.indexOf("### Providers without a scheme"));
  const [, yaml = ""] = /```yaml\n(.*?)```/s.exec(section) ?? [];
  return (Bun.YAML.parse(yaml) as { hooks: Hooks }).hooks;
}

test.each([
  ["dropbox", "challenge=abc123", "x-dropbox-signature", ""],
  ["meta", `hub.challenge=abc123&hub.verify_token=${SECRET}`, "x-hub-signature-256", "sha256="],
])("%s: its challenge is given back as text, and what it signs is kept", async (...provider) => {
  const [name, query, header, prefix] = provider;
  await using server = await verifiedServer(await hooksOfThePage());
  const path = `/hooks/${name}`;
  const asked = await server.call("GET", `${path}?${query}`, { token: null });
  expect([asked.status, asked.text]).toEqual([200, "abc123"]);
  expect(asked.headers.get("content-type")).toStartWith("text/plain");
  expect(asked.headers.get("x-content-type-options")).toBe("nosniff");
  const body = '{"list_folder":{"accounts":["é"]}}';
  const signed = `${prefix}${createHmac("sha256", SECRET).update(body).digest("hex")}`;
  const send = (text: string) =>
    server.call("POST", path, { body: text, headers: { [header]: signed }, token: null });
  expect((await send(body)).status).toBe(202);
  expect((await send(`${body} `)).json["code"]).toBe("signature-invalid");
});

test("paddle: a list of time and signatures is taken, and its event once", async () => {
  await using server = await verifiedServer(await hooksOfThePage());
  const atS = Math.floor(Date.now() / 1000);
  const body = '{"event_id":"evt_1"}';
  const mac = createHmac("sha256", SECRET).update(`${atS}:${body}`).digest("hex");
  const send = (signature: string) =>
    server.call("POST", "/hooks/paddle", {
      body,
      headers: { "paddle-signature": signature },
      token: null,
    });
  expect((await send(`ts=${atS};h1=${"0".repeat(64)}`)).json["code"]).toBe("signature-invalid");
  expect((await send(`ts=${atS};h1=${mac}`)).json["duplicate"]).toBe(false);
  expect((await send(`ts=${atS};h1=${"0".repeat(64)};h1=${mac}`)).json["duplicate"]).toBe(true);
});

test("twitch: its challenge is given back once it is signed, and an event is kept once", async () => {
  await using server = await verifiedServer(await hooksOfThePage());
  const at = new Date().toISOString().replace("Z", "123456Z");
  const body = '{"challenge":"pogchamp-kappa","subscription":{"id":"f1c2"}}';
  const send = (id: string, type: string, key = SECRET) => {
    const mac = createHmac("sha256", key).update(`${id}${at}${body}`).digest("hex");
    const headers = {
      "twitch-eventsub-message-id": id,
      "twitch-eventsub-message-timestamp": at,
      "twitch-eventsub-message-signature": `sha256=${mac}`,
      "twitch-eventsub-message-type": type,
    };
    return server.call("POST", "/hooks/twitch", { body, headers, token: null });
  };
  const asked = await send("m1", "webhook_callback_verification");
  expect([asked.status, asked.text]).toEqual([200, "pogchamp-kappa"]);
  const forged = await send("m1", "webhook_callback_verification", "another key");
  expect(forged.json["code"]).toBe("signature-invalid");
  expect((await send("m2", "notification")).json["duplicate"]).toBe(false);
  expect((await send("m2", "notification")).json["duplicate"]).toBe(true);
});
