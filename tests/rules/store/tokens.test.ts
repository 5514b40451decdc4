/** Tokens and roles: who a caller is, and what it may do. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile, rm, writeFile } from "node:fs/promises";
import { systemClock } from "../../../src/clock.ts";
import { ConflictError, InvalidError, NotFoundError, StorageError } from "../../../src/errors.ts";
import { encodeText } from "../../../src/message.ts";
import { ROLES } from "../../../src/rules/store/role-names.ts";
import {
  hasRole,
  holdGrants,
  matchesStream,
  prepareGrants,
  type Principal,
  readReach,
  writeReach,
} from "../../../src/rules/store/roles.ts";
import type { NewToken } from "../../../src/rules/store/tokens.ts";
import { temporaryFolder } from "../../temporary.ts";
import { by, filesWith, opened } from "./opened.ts";

setDefaultTimeout(30_000);

function mayRead(principal: Principal, stream: string, key: string | null): boolean {
  return readReach(principal, stream, key) !== null;
}

function mayWrite(principal: Principal, stream: string, key: string | null): boolean {
  return writeReach(principal, stream, key === null ? null : encodeText(key)) !== null;
}

describe("tokens", () => {
  test("let their bearer in, over a restart without a database too", async () => {
    await using folder = await temporaryFolder("store");
    const first = await opened(folder.path);
    const { token, info } = await first.store.tokens.create({ name: "ops", role: "operator" }, by);
    expect(token).toMatch(/^ist_[\w-]{43}$/);
    expect(info).toMatchObject({ name: "ops", role: "operator", createdBy: "test" });
    expect(JSON.stringify(info)).not.toContain("hash");
    await first.store[Symbol.asyncDispose]();
    await rm(`${folder.path}/pglite`, { recursive: true });
    await using second = await opened(folder.path);
    const principal = await second.store.tokens.authenticate(token);
    expect(principal).toEqual({
      tokenId: info.id,
      subject: "token:ops",
      name: "ops",
      role: "operator",
      read: [],
      write: [],
      expiresAtMs: null,
    });
    const snapshot = await readFile(`${folder.path}/definitions.json`, "utf8");
    expect(snapshot).not.toContain(token.slice(4));
    expect(Bun.inspect(second.store.tokens.list())).not.toContain(token.slice(4));
  });

  test("are refused when unknown, changed, revoked or expired", async () => {
    await using folder = await temporaryFolder("store");
    const clock = { ...systemClock, nowMs: () => nowMs };
    let nowMs = 1_800_000_000_000;
    await using at = await opened(folder.path, { clock });
    const { tokens } = at.store;
    const { token } = await tokens.create(
      { name: "t", role: "viewer", expiresAtMs: nowMs + 1_000 },
      by,
    );
    const principal = await tokens.authenticate(token);
    expect(principal?.expiresAtMs).toBe(nowMs + 1_000);
    for (const wrong of [
      "",
      "ist_",
      `${token}x`,
      token.slice(0, -1),
      token.toUpperCase(),
      "x".repeat(10_000),
    ]) {
      expect(await tokens.authenticate(wrong)).toBeNull();
    }
    nowMs += 1_000;
    expect(await tokens.authenticate(token)).toBeNull();
    expect(principal !== null && tokens.isStanding(principal)).toBe(false);
    const other = await tokens.create({ name: "u", role: "viewer" }, by);
    const revoked = await tokens.revoke("u", { by: "ann" });
    expect(revoked).toMatchObject({ revokedAtMs: nowMs, revokedBy: "ann" });
    expect(await tokens.authenticate(other.token)).toBeNull();
    await expect(tokens.revoke("u", by)).rejects.toBeInstanceOf(NotFoundError);
    await tokens.create({ name: "u", role: "viewer" }, by);
    expect(tokens.list().map(({ name, revokedAtMs }) => [name, revokedAtMs === null])).toEqual([
      ["t", true],
      ["u", false],
      ["u", true],
    ]);
  });

  test("have one live name each", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path);
    const made = await Promise.allSettled(
      [1, 2].map(async () => await at.store.tokens.create({ name: "t", role: "viewer" }, by)),
    );
    expect(made.map((one) => one.status)).toEqual(["fulfilled", "rejected"]);
    expect((made[1] as PromiseRejectedResult).reason).toBeInstanceOf(ConflictError);
  });

  test("give clients their grants, with their own subject put in", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path);
    const { token } = await at.store.tokens.create(
      {
        name: "app",
        subject: "ann",
        read: [
          { stream: "inbox", key: "claims.sub" },
          { stream: "news", key: "claims.org" },
        ],
        write: [{ stream: "chat*", key: null }],
      },
      by,
    );
    expect(await at.store.tokens.authenticate(token)).toMatchObject({
      subject: "ann",
      role: null,
      read: [{ stream: "inbox", key: "ann" }],
      write: [{ stream: "chat*", key: null }],
    });
  });

  test("are refused when what is asked for makes no sense", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path);
    const read = [{ stream: "s", key: null }];
    const wrong: [NewToken, string][] = [
      [{ name: "../t", role: "viewer" }, "/name"],
      [{ name: "t" }, "/subject"],
      [{ name: "t", subject: "ann" }, "/read"],
      [{ name: "t", subject: "", read }, "/subject"],
      [{ name: "t", subject: "token:admin", read }, "/subject"],
      [{ name: "t", role: "root" as "admin" }, "/role"],
      [{ name: "t", role: "viewer", subject: "ann" }, "/role"],
      [{ name: "t", role: "viewer", read }, "/role"],
      [{ name: "t", role: "viewer", expiresAtMs: 1 }, "/expires"],
      [{ name: "t", subject: "ann", read: [{ stream: "a/b", key: null }] }, "/read"],
      [{ name: "t", subject: "ann", write: [{ stream: "a", key: "" }] }, "/write"],
    ];
    for (const [token, pointer] of wrong) {
      const failure = await at.store.tokens.create(token, by).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(InvalidError);
      expect((failure as InvalidError).errors[0]?.pointer).toBe(pointer);
    }
  });

  test("are made and revoked only once that is in the snapshot", async () => {
    await using folder = await temporaryFolder("store");
    let isFull = false;
    const files = filesWith({
      before: () => {
        if (isFull) throw new StorageError("no space left");
      },
    });
    await using at = await opened(folder.path, { files });
    const { token } = await at.store.tokens.create({ name: "t", role: "viewer" }, by);
    isFull = true;
    await expect(at.store.tokens.revoke("t", by)).rejects.toBeInstanceOf(StorageError);
    expect(await at.store.tokens.authenticate(token)).not.toBeNull();
    await expect(at.store.tokens.create({ name: "u", role: "viewer" }, by)).rejects.toBeInstanceOf(
      StorageError,
    );
    expect(at.store.tokens.list()).toHaveLength(1);
  });

  test("tell to the hour when they were last used, over a restart too", async () => {
    await using folder = await temporaryFolder("store");
    const hourMs = 3_600_000;
    let nowMs = 500_000 * hourMs;
    const clock = { ...systemClock, nowMs: () => nowMs };
    const first = await opened(folder.path, { clock });
    const { token } = await first.store.tokens.create({ name: "t", role: "viewer" }, by);
    expect(first.store.tokens.list()[0]?.lastUsedAtMs).toBeNull();
    nowMs += 2.5 * hourMs;
    await first.store.tokens.authenticate(token);
    expect(first.store.tokens.list()[0]?.lastUsedAtMs).toBe(500_002 * hourMs);
    await first.store.change([{ kind: "streams", name: "s", document: {} }], by);
    await first.store[Symbol.asyncDispose]();
    await using second = await opened(folder.path, { clock });
    expect(second.store.tokens.list()[0]?.lastUsedAtMs).toBe(500_002 * hourMs);
  });
});

describe("the admin token", () => {
  test("is made at the first start, kept, and of the admin role", async () => {
    await using folder = await temporaryFolder("store");
    const first = await opened(folder.path);
    const token = (await readFile(`${folder.path}/admin-token`, "utf8")).trim();
    expect((await first.store.tokens.authenticate(token))?.role).toBe("admin");
    await first.store[Symbol.asyncDispose]();
    await using second = await opened(folder.path);
    const principal = await second.store.tokens.authenticate(token);
    expect(principal).toMatchObject({ tokenId: null, subject: "token:admin", role: "admin" });
    expect(principal !== null && second.store.tokens.isStanding(principal)).toBe(true);
  });

  test("is the one of the settings when there is one, and never empty", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path, { adminToken: "mine" });
    expect((await at.store.tokens.authenticate("mine"))?.role).toBe("admin");
    await writeFile(`${folder.path}/admin-token`, "\n");
    await expect(opened(folder.path)).rejects.toThrow("is empty");
    await expect(opened(folder.path, { adminToken: " " })).rejects.toThrow("is empty");
  });
});

describe("roles", () => {
  const none: Principal = {
    tokenId: "1",
    subject: "ann",
    name: "app",
    role: null,
    read: [],
    write: [],
    expiresAtMs: null,
  };

  test("contain one another, and say who reads and publishes", () => {
    const may = ROLES.map((role) => {
      const principal = { ...none, role };
      return [
        ROLES.filter((other) => hasRole(principal, other)),
        mayRead(principal, "s", null),
        mayWrite(principal, "s", null),
      ];
    });
    expect(may).toEqual([
      [["viewer"], true, false],
      [["viewer", "operator"], true, true],
      [["viewer", "operator", "admin"], true, true],
    ]);
    expect(ROLES.some((role) => hasRole(none, role))).toBe(false);
  });

  test("of grants reach as far as stream and key", () => {
    const client: Principal = {
      ...none,
      read: [
        { stream: "inbox", key: "ann" },
        { stream: "news.*", key: null },
      ],
      write: [{ stream: "chat", key: "ann" }],
    };
    expect(mayRead(client, "inbox", "ann")).toBe(true);
    expect(mayRead(client, "inbox", "bob")).toBe(false);
    expect(mayRead(client, "inbox", null)).toBe(false);
    expect(mayRead(client, "news.eu", null)).toBe(true);
    expect(mayRead(client, "news.eu", "k")).toBe(true);
    expect(mayRead(client, "chat", "ann")).toBe(false);
    expect(mayWrite(client, "chat", "ann")).toBe(true);
    expect(mayWrite(client, "chat", null)).toBe(false);
    expect(mayWrite(client, "inbox", "ann")).toBe(false);
  });

  test("match streams by patterns with any number of stars", () => {
    const table: [string, string, boolean][] = [
      ["a", "a", true],
      ["a", "ab", false],
      ["*", "anything", true],
      ["*", "$audit", false],
      ["$*", "$audit", true],
      ["a*", "a", true],
      ["a*", "ba", false],
      ["*a", "ba", true],
      ["a*b*c", "abc", true],
      ["a*b*c", "axxbyyc", true],
      ["a*b*c", "ac", false],
      ["a*bc*c", "abc", false],
      ["ab*ba", "aba", false],
      ["*.*", "rule.dead", true],
      ["**", "x", true],
      ["a.b", "axb", false],
    ];
    for (const [pattern, stream, expected] of table) {
      expect([pattern, stream, matchesStream(pattern, stream)]).toEqual([
        pattern,
        stream,
        expected,
      ]);
    }
  });

  test("take claims from the caller's own, never from a prototype", () => {
    const grants = ["claims.sub", "claims.constructor", "claims.n", "literal", "claims.a.b"].map(
      (key) => ({ stream: "s", key }),
    );
    expect(
      holdGrants(prepareGrants("read", grants), { sub: "ann", n: 3 }).map((grant) => grant.key),
    ).toEqual(["ann", "literal", "claims.a.b"]);
  });
});
