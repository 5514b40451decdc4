/** The client SDK and tokens that end, against a server that checks them. */
import { expect, test } from "bun:test";
import { exportSPKI, generateKeyPair, SignJWT } from "jose";
import { connect } from "../../src/client/client.ts";
import { testServer } from "../http/support.ts";
import { quick } from "./support.ts";

test("a callback that gives old tokens is asked again, with waits, until it gives a good one", async () => {
  await using server = await testServer();
  const pair = await generateKeyPair("ES256");
  const publicKey = await exportSPKI(pair.publicKey);
  const document = { jwt: { publicKey, audience: "app" }, write: [{ stream: "s" }] };
  await server.gateway.change([{ kind: "access", name: "app", document }], { by: "tests" });
  const make = (forS: number): Promise<string> =>
    new SignJWT({ sub: "ann", aud: "app" })
      .setProtectedHeader({ alg: "ES256" })
      .setExpirationTime(Math.floor(Date.now() / 1000) + forS)
      .sign(pair.privateKey);
  let asked = 0;
  const client = connect({
    url: server.url,
    tuning: quick,
    token: () => make(++asked < 4 ? -3600 : 3600),
  });
  const codes: unknown[] = [];
  client.onState(({ status, error }) => status === "offline" && codes.push(error?.code));
  expect((await client.publish("s", { body: "1" })).offset).toBe(0);
  expect(asked).toBe(4);
  expect(codes).toEqual(["token-expired", "token-expired", "token-expired"]);
  const fixed = connect({ url: server.url, tuning: quick, token: await make(-3600) });
  await expect(fixed.publish("s", { body: "x" })).rejects.toMatchObject({ code: "token-expired" });
  await Promise.all([client.close(), fixed.close()]);
});
