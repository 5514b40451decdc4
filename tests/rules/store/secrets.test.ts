/** Secrets of documents: sealed before anything else sees them, resolved only when used. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { InvalidError } from "../../../src/errors.ts";
import type { JsonObject, Kind } from "../../../src/rules/document.ts";
import { resolveReferences } from "../../../src/rules/store/references.ts";
import { Keyring, newSecretKey, sealDocument } from "../../../src/rules/store/secrets.ts";
import type { StoredSecret } from "../../../src/rules/store/state.ts";
import { missingBroker } from "../../brokers/broker.ts";
import { temporaryFolder } from "../../temporary.ts";
import { bridge, by, connection, filesWith, opened, ownDatabase, testKey } from "./opened.ts";

setDefaultTimeout(30_000);

const keyring = new Keyring(testKey);

/** Seals a document, given what is stored already. */
function sealed(
  document: JsonObject,
  options: { kind?: Kind; name?: string; held?: readonly StoredSecret[] } = {},
): { document: JsonObject; secrets: readonly StoredSecret[]; texts: string[] } {
  const { kind = "bridges", name = "near", held = [] } = options;
  const stored = new Map(held.map((secret) => [secret.path, secret]));
  const result = sealDocument({ kind, name, document, held: stored, atMs: 0 }, keyring);
  return { ...result, texts: result.secrets.map((secret) => keyring.open(secret)) };
}

describe("sealing", () => {
  test("replaces what is secret, and only that", () => {
    const { document, texts } = sealed({
      url: "amqp://guest:p%40ss@127.0.0.1:5672/v",
      urls: ["amqp://a:61616", "amqp://u:second@b:61616"],
      username: "guest",
      password: "third",
      headers: { Authorization: "Bearer fourth", "x-api-key": "fifth", accept: "text/plain" },
      tls: { ca: "CA", cert: "CERT", key: "sixth" },
    });
    expect(document).toEqual({
      url: "amqp://guest:${secret:bridges.near.url}@127.0.0.1:5672/v",
      urls: ["amqp://a:61616", "amqp://u:${secret:bridges.near.urls.1}@b:61616"],
      username: "guest",
      password: "${secret:bridges.near.password}",
      headers: {
        Authorization: "${secret:bridges.near.headers.Authorization}",
        "x-api-key": "${secret:bridges.near.headers.x-api-key}",
        accept: "text/plain",
      },
      tls: { ca: "CA", cert: "CERT", key: "${secret:bridges.near.tls.key}" },
    });
    expect(texts).toEqual(["p%40ss", "second", "third", "Bearer fourth", "fifth", "sixth"]);
  });

  test("replaces signing secrets of hooks and targets", () => {
    const hook = { stream: "s", verify: { scheme: "stripe", secrets: ["a", "${env:B}", "c"] } };
    expect(sealed(hook, { kind: "hooks", name: "h" }).document["verify"]).toEqual({
      scheme: "stripe",
      secrets: [
        "${secret:hooks.h.verify.secrets.0}",
        "${env:B}",
        "${secret:hooks.h.verify.secrets.2}",
      ],
    });
    const rule = {
      to: [{ bridge: "crm", sign: { secrets: ["a"] } }],
      set: { body: "http://u:p@h" },
    };
    expect(sealed(rule, { kind: "rules", name: "r" }).document).toEqual({
      to: [{ bridge: "crm", sign: { secrets: ["${secret:rules.r.to.0.sign.secrets.0}"] } }],
      set: { body: "http://u:p@h" },
    });
  });

  test("leaves references and CEL alone", () => {
    const document = {
      url: "amqp://guest:${env:PASSWORD}@127.0.0.1",
      password: "${file:/run/secrets/p}",
      headers: { authorization: "Bearer ${env:CRM}", cookie: "" },
    };
    expect(sealed(document)).toMatchObject({ document, secrets: [] });
    expect(sealed({ to: "${body.x}" }, { kind: "rules" }).document).toEqual({ to: "${body.x}" });
    // What is written beside a reference is a secret still.
    const { texts } = sealed({ headers: { authorization: "Bearer abc${env:CRM}" } });
    expect(texts).toEqual(["Bearer abc${env:CRM}"]);
  });

  test("makes a new version only of a text that is another one", () => {
    const first = sealed({ password: "a" });
    expect(sealed({ password: "a" }, { held: first.secrets })).toMatchObject({
      document: first.document,
      secrets: [],
    });
    expect(sealed(first.document, { held: first.secrets })).toMatchObject({
      document: first.document,
      secrets: [],
    });
    const second = sealed({ password: "b" }, { held: first.secrets });
    expect(second.document).toEqual(first.document);
    expect(second.secrets[0]).toMatchObject({ path: "bridges.near.password", version: 2 });
  });

  test("keeps secrets apart when a list changes its order, or names hold dots", () => {
    const first = sealed({ urls: ["x://u:a@h", "x://u:b@h"] });
    const [one, two] = first.document["urls"] as string[];
    const turned = sealed({ urls: [two ?? "", "x://u:c@h"] }, { held: first.secrets });
    expect(turned.document["urls"]).toEqual([two ?? "", "x://u:${secret:bridges.near.urls.1.2}@h"]);
    expect(turned.texts).toEqual(["c"]);
    expect(one).not.toBe(two);
    const dotted = sealed({ key: "k", tls: { key: "a" } }, { name: "near" });
    const [owned] = dotted.secrets;
    const foreign = owned === undefined ? [] : [{ ...owned, name: "near.tls" }];
    expect(sealed({ tls: { key: "b" } }, { held: foreign }).secrets[0]?.path).toBe(
      "bridges.near.tls.key.2",
    );
  });

  test("refuses a reference to a secret that isn't there, or is another's", () => {
    const mine = sealed({ password: "a" });
    const named = { password: "${secret:bridges.near.password}" };
    expect(() => sealed(named)).toThrow(InvalidError);
    expect(() => sealed(named, { name: "far", held: mine.secrets })).toThrow(InvalidError);
    expect(() => sealed({ username: "${secret:nothing}" }, { held: mine.secrets })).toThrow(
      "no secret is stored",
    );
  });

  test("refuses a document that nests without end", () => {
    let deep: JsonObject = {};
    for (let depth = 0; depth < 10_000; depth += 1) deep = { deep };
    expect(() => sealed(deep)).toThrow("nests deeper");
  });
});

describe("a sealed secret", () => {
  const secretOf = (text: string): StoredSecret => {
    const at = { path: "bridges.near.password", version: 1 };
    return { ...at, kind: "bridges", name: "near", atMs: 0, ...keyring.seal(text, at) };
  };

  test("opens with its key, at its path and version, unchanged; else not", () => {
    const secret = secretOf("pä$$");
    expect(keyring.open(secret)).toBe("pä$$");
    const other = secretOf("pä$$");
    expect(other.sealed).not.toBe(secret.sealed);
    const flip = (text: string): string => {
      const bytes = Buffer.from(text, "base64");
      bytes.writeUInt8(bytes.readUInt8(20) ^ 1, 20);
      return bytes.toString("base64");
    };
    for (const wrong of [
      { ...secret, path: "bridges.far.password" },
      { ...secret, version: 2 },
      { ...secret, wrapped: other.wrapped },
      { ...secret, sealed: flip(secret.sealed) },
      { ...secret, wrapped: flip(secret.wrapped) },
      { ...secret, sealed: "" },
    ]) {
      expect(() => keyring.open(wrong)).toThrow("can't be decrypted");
    }
    expect(() => new Keyring(newSecretKey()).open(secret)).toThrow(InvalidError);
  });

  test("is proved by its own key only, and a short key is refused", () => {
    expect(keyring.proves(new Keyring(testKey).proof)).toBe(true);
    expect(keyring.proves(new Keyring(newSecretKey()).proof)).toBe(false);
    expect(() => new Keyring("short")).toThrow("at least 32 characters");
  });
});

describe("resolving", () => {
  const sources = {
    env: (name: string) => ({ A: "from ${env:B}", EMPTY: "" })[name],
    file: async (path: string) => (path === "/f" ? "line\n" : null),
    secret: (path: string) => ({ s: "<${env:A}>", nested: "${secret:s}" })[path] ?? null,
  };

  test("puts in values, which are not looked into", async () => {
    expect(await resolveReferences("a ${env:A} ${file:/f}${env:EMPTY} ${body.x}", sources)).toBe(
      "a from ${env:B} line ${body.x}",
    );
    expect(await resolveReferences("${secret:s}", sources)).toBe("<from ${env:B}>");
  });

  test("names what is missing", async () => {
    for (const name of ["env:B", "file:/g", "secret:t"]) {
      await expect(resolveReferences(`x \${${name}}`, sources)).rejects.toThrow(
        `\${${name}} can't be resolved`,
      );
    }
    await expect(resolveReferences("${secret:nested}", sources)).rejects.toBeInstanceOf(
      InvalidError,
    );
  });

  test("does not give away the gateway's own keys", async () => {
    const own = { ...sources, env: () => "canary" };
    for (const name of ["ISTHMUS_SECRET_KEY", "ISTHMUS_ADMIN_TOKEN"]) {
      await expect(resolveReferences(`\${env:${name}}`, own)).rejects.toThrow("own key");
    }
  });
});

function textOf(value: unknown): string {
  if (typeof value !== "string") throw new Error("the document has a text there");
  return value;
}

const canary = "canary-7f3a";
const guarded = {
  kind: "bridges",
  name: "near",
  document: { ...bridge, url: `one://u:${canary}-url@h:1`, password: `${canary}-password` },
} as const;

describe("the store's secrets", () => {
  test("are in no file of the embedded store, in nothing said, and are resolved when used", async () => {
    await using folder = await temporaryFolder("store");
    const at = await opened(folder.path, { env: (name) => (name === "X" ? "x" : undefined) });
    const { definitions, results } = await at.store.change([guarded], by);
    const again = await at.store.change([guarded], by);
    expect(again.results[0]?.outcome).toBe("same");
    const stored = definitions.bridges.get("near");
    expect(await at.store.resolveText(textOf(stored?.document["url"]))).toBe(guarded.document.url);
    expect(await at.store.resolveText("${env:X}${secret:bridges.near.password}")).toBe(
      `x${canary}-password`,
    );
    const wrong = { ...guarded, document: { ...guarded.document, kind: "ten", other: true } };
    const failure = await at.store.change([wrong], by).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(InvalidError);
    const said = Bun.inspect([
      failure,
      results,
      definitions,
      at.warnings,
      await at.store.revisions("bridges", "near"),
      at.store,
    ]);
    expect(said).not.toContain(canary);
    await at.store[Symbol.asyncDispose]();
    const files = await readdir(folder.path, { recursive: true, withFileTypes: true });
    for (const file of files.filter((entry) => entry.isFile())) {
      const bytes = await readFile(`${file.parentPath}/${file.name}`);
      expect([file.name, bytes.includes(canary)]).toEqual([file.name, false]);
    }
  });

  test.skipIf(missingBroker("postgres") !== null)("are in no row of Postgres", async () => {
    await using folder = await temporaryFolder("store");
    const databaseUrl = await ownDatabase();
    await using at = await opened(folder.path, { databaseUrl });
    await at.store.change([guarded], by);
    await using there = connection(databaseUrl);
    const tables = await there.sql`
      select table_name from information_schema.tables where table_schema = 'isthmus'`;
    expect(tables.length).toBeGreaterThan(5);
    for (const { table_name: name } of tables) {
      const rows = await there.sql`select * from isthmus.${there.sql(name)}`;
      expect(JSON.stringify(rows)).not.toContain(canary);
    }
  });

  test("change a definition whose document stays the same text", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path);
    await at.store.change([guarded], by);
    const document = { ...guarded.document, password: "another" };
    const { results, definitions } = await at.store.change([{ ...guarded, document }], by);
    expect(results[0]).toMatchObject({ revision: 2, outcome: "changed" });
    const stored = definitions.bridges.get("near")?.document ?? {};
    expect(await at.store.resolveText(textOf(stored["password"]))).toBe("another");
    const same = await at.store.change([{ ...guarded, document: stored }], by);
    expect(same.results[0]?.outcome).toBe("same");
    await at.store.change([{ ...guarded, document: bridge }], by);
    await expect(at.store.change([{ ...guarded, document: stored }], by)).rejects.toThrow(
      "no secret is stored",
    );
  });

  test("can't be read with another key, and no new key is made in its place", async () => {
    await using folder = await temporaryFolder("store");
    const first = await opened(folder.path);
    await first.store.change([guarded], by);
    await first.store[Symbol.asyncDispose]();
    await expect(opened(folder.path, { secretKey: newSecretKey() })).rejects.toThrow(
      /^ISTHMUS_SECRET_KEY is not the key that the stored secrets were encrypted with$/,
    );
    const path = `${folder.path}/secret-key`;
    const key = await readFile(path, "utf8");
    await rm(path);
    await expect(opened(folder.path)).rejects.toThrow("is missing");
    await writeFile(path, newSecretKey());
    await expect(opened(folder.path)).rejects.toThrow("is not the key");
    await writeFile(path, "");
    await expect(opened(folder.path)).rejects.toThrow("is empty");
    await writeFile(path, key);
    await using again = await opened(folder.path);
    expect(await again.store.resolveText("${secret:bridges.near.password}")).toContain(canary);
  });

  test("are kept while a kept revision of a rule names them", async () => {
    await using folder = await temporaryFolder("store");
    // The gateway's parser knows no signed targets; what is stored is the store's own matter.
    const rule = (document: JsonObject) => ({ kind: "rules", name: "r", document }) as const;
    const loose = await opened(`${folder.path}/loose`, {
      parse: () => ({ from: { stream: "s" }, to: [] }),
    });
    await loose.store.change([rule({ to: [{ sign: { secret: "old" } }] })], by);
    await loose.store.change([rule({ to: [] })], by);
    expect(await loose.store.resolveText("${secret:rules.r.to.0.sign.secret}")).toBe("old");
    await loose.store.change([{ ...rule({}), document: null }], by);
    await expect(loose.store.resolveText("${secret:rules.r.to.0.sign.secret}")).rejects.toThrow(
      "no such secret",
    );
    await loose.store[Symbol.asyncDispose]();
  });

  test("come from files as they are at the time", async () => {
    await using folder = await temporaryFolder("store");
    await mkdir(`${folder.path}/run`);
    await using at = await opened(`${folder.path}/data`, { files: filesWith({}) });
    await writeFile(`${folder.path}/run/p`, "one\n");
    const text = `\${file:${folder.path}/run/p}`;
    expect(await at.store.resolveText(text)).toBe("one");
    await writeFile(`${folder.path}/run/p`, "two\r\n");
    expect(await at.store.resolveText(text)).toBe("two");
  });
});
