/** What every store does, on the embedded database and on Postgres alike. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ConflictError, InvalidError, NotFoundError } from "../../../src/errors.ts";
import type { JsonObject } from "../../../src/rules/document.ts";
import { missingBroker } from "../../brokers/broker.ts";
import { temporaryFolder } from "../../temporary.ts";
import { bridge, by, opened, ownDatabase, rule } from "./opened.ts";

setDefaultTimeout(30_000);

const near = { kind: "bridges", name: "near", document: bridge } as const;
const big = { kind: "rules", name: "big", document: rule } as const;

const engines = [
  { engine: "embedded", database: async () => undefined },
  { engine: "Postgres", database: async () => await ownDatabase() },
];

for (const { engine, database } of engines) {
  const isMissing = engine === "Postgres" && missingBroker("postgres") !== null;
  describe.skipIf(isMissing)(`the store on ${engine}`, () => {
    const setup = async (): Promise<
      AsyncDisposableStack & { open: () => ReturnType<typeof opened> }
    > => {
      const stack = new AsyncDisposableStack();
      const folder = stack.use(await temporaryFolder("store"));
      const databaseUrl = await database();
      const open = async (): ReturnType<typeof opened> => {
        const options = databaseUrl === undefined ? {} : { databaseUrl };
        return stack.use(await opened(folder.path, options));
      };
      return Object.assign(stack, { open });
    };

    test("answers a change with what it made, and holds it after a restart", async () => {
      await using at = await setup();
      const first = await at.open();
      const { definitions, results } = await first.store.change([big, near], {
        by: "ann",
        project: "shop",
        why: "first",
      });
      expect(results.map(({ name, revision, outcome }) => [name, revision, outcome])).toEqual([
        ["big", 1, "created"],
        ["near", 1, "created"],
      ]);
      expect(first.store.current()).toBe(definitions);
      expect(definitions.version).toBe(1);
      await first.store[Symbol.asyncDispose]();

      const second = await at.open();
      expect(second.store.current()).toEqual(definitions);
      expect(second.store.current().rules.get("big")?.project).toBe("shop");
      expect(second.warnings).toEqual([]);
      const [revision] = await second.store.revisions("rules", "big");
      expect(revision).toMatchObject({ revision: 1, by: "ann", why: "first", document: rule });
    });

    test("makes no revision of a document that is the same", async () => {
      await using at = await setup();
      const { store } = await at.open();
      const before = await store.change([near, big], by);
      const again = await store.change([near, big], by);
      expect(again.results.map((result) => result.outcome)).toEqual(["same", "same"]);
      expect(again.definitions.version).toBe(before.definitions.version);
      const changed = await store.change([{ ...big, document: { ...rule, enabled: false } }], by);
      expect(changed.results).toEqual([
        { kind: "rules", name: "big", revision: 2, outcome: "changed" },
      ]);
      expect(changed.definitions.bridges.get("near")).toBe(before.definitions.bridges.get("near"));
    });

    test("applies nothing of a call in which one document is wrong", async () => {
      await using at = await setup();
      const { store } = await at.open();
      const wrong = { kind: "rules", name: "odd", document: { ...rule, wehre: "true" } } as const;
      const failure = await store.change([near, big, wrong], by).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(InvalidError);
      expect((failure as InvalidError).code).toBe("definition-invalid");
      expect((failure as InvalidError).errors[0]?.pointer).toStartWith("/rules/odd/");
      expect(store.current().version).toBe(0);
      expect(await store.revisions("bridges", "near")).toEqual([]);
    });

    test("points into the document itself when it came alone", async () => {
      await using at = await setup();
      const { store } = await at.open();
      const wrong = { ...near, document: 3 as unknown as JsonObject };
      await expect(store.change([wrong], by)).rejects.toBeInstanceOf(InvalidError);
      const failure = await store.change([big], by).catch((error: unknown) => error);
      expect((failure as InvalidError).errors[0]?.pointer).toBe("/to/0/bridge");
    });

    test("refuses to delete what is in use, unless its user goes with it", async () => {
      await using at = await setup();
      const { store } = await at.open();
      const orders = { kind: "streams", name: "orders", document: { partitions: 2 } } as const;
      await store.change([near, big, orders], by);
      for (const used of [near, orders]) {
        const failure = await store
          .change([{ ...used, document: null }], by)
          .catch((error: unknown) => error);
        expect(failure).toBeInstanceOf(ConflictError);
        expect(failure).toMatchObject({ code: "in-use", members: { users: ["rules/big"] } });
      }
      const gone = await store.change(
        [near, big, orders].map((one) => ({ ...one, document: null })),
        by,
      );
      expect(gone.results.map((result) => result.outcome)).toEqual(Array(3).fill("deleted"));
      expect(gone.definitions.bridges.size).toBe(0);
      await expect(store.change([{ ...near, document: null }], by)).rejects.toBeInstanceOf(
        NotFoundError,
      );
    });

    test("changes only what stands at the expected revision", async () => {
      await using at = await setup();
      const { store } = await at.open();
      await store.change([{ ...near, ifRevision: 0 }], by);
      for (const ifRevision of [0, 2]) {
        const change = { ...near, document: { ...bridge, url: "one://b:1" }, ifRevision };
        const failure = await store.change([change], by).catch((error: unknown) => error);
        expect(failure).toMatchObject({ code: "conflict", members: { revision: 1 } });
      }
      const change = { ...near, document: { ...bridge, url: "one://b:1" }, ifRevision: 1 };
      expect((await store.change([change], by)).results[0]?.revision).toBe(2);
    });

    test("goes on counting the revisions of a name that was deleted, over a restart too", async () => {
      await using at = await setup();
      const first = await at.open();
      await first.store.change([near], by);
      await first.store.change([{ ...near, document: null }], by);
      await first.store[Symbol.asyncDispose]();
      const { store } = await at.open();
      const { results } = await store.change([near], by);
      expect(results[0]).toMatchObject({ revision: 3, outcome: "created" });
      const all = await store.revisions("bridges", "near");
      expect(all.map(({ revision, document }) => [revision, document === null])).toEqual([
        [3, false],
        [2, true],
        [1, false],
      ]);
    });

    test("keeps a rule's last 64 revisions at hand, and none of a deleted one", async () => {
      await using at = await setup();
      const first = await at.open();
      await first.store.change([near], by);
      for (let priority = 1; priority <= 70; priority += 1) {
        const set = { headers: { n: String(priority) } };
        await first.store.change([{ ...big, document: { ...rule, set } }], by);
      }
      const parsed = first.store.revision("rules", "big", 69);
      expect(parsed?.document["set"]).toEqual({ headers: { n: "69" } });
      await first.store[Symbol.asyncDispose]();
      const { store } = await at.open();
      expect(store.revision("rules", "big", 6)).toBeNull();
      expect(store.revision("rules", "big", 7)?.document["set"]).toEqual({ headers: { n: "7" } });
      expect(store.revision("rules", "big", 69)).toEqual(parsed);
      expect(store.revision("rules", "big", 70)).toBe(store.current().rules.get("big") ?? null);
      await store.change([{ ...big, document: null }], by);
      expect(store.revision("rules", "big", 70)).toBeNull();
    });

    test("keeps a document's text as it was written", async () => {
      await using at = await setup();
      const document = JSON.parse(
        '{"to":[{"stream":"z"}],"set":{"body":{"z":1,"a":"\\u0000","__proto__":"p","b":"\\ud800"}},"from":"y"}',
      ) as JsonObject;
      const first = await at.open();
      await first.store.change([{ kind: "rules", name: "odd", document }], by);
      await first.store[Symbol.asyncDispose]();
      const { store } = await at.open();
      const stored = store.current().rules.get("odd")?.document;
      expect(JSON.stringify(stored)).toBe(JSON.stringify(document));
      const [revision] = await store.revisions("rules", "odd");
      expect(JSON.stringify(revision?.document)).toBe(JSON.stringify(document));
    });

    test("parses the users of a bridge anew when its kind changes", async () => {
      await using at = await setup();
      const { store } = await at.open();
      await store.change([near, big], by);
      const before = store.current().rules.get("big");
      await store.change([{ ...near, document: { kind: "two", url: "two://127.0.0.1:1" } }], by);
      const after = store.current().rules.get("big");
      expect(after?.revision).toBe(before?.revision ?? 0);
      expect(after?.parsed.to[0]?.name).not.toBe(before?.parsed.to[0]?.name ?? "");
    });

    test("makes changes asked for at once one after another", async () => {
      await using at = await setup();
      const { store } = await at.open();
      const names = Array.from({ length: 20 }, (_, index) => `s${index}`);
      await Promise.all(
        names.map(async (name) => {
          return await store.change([{ kind: "streams", name, document: {} }], by);
        }),
      );
      expect(store.current().version).toBe(20);
      expect([...store.current().streams.keys()].toSorted()).toEqual(names.toSorted());
    });

    test("hands a definition over to another project without a new revision", async () => {
      await using at = await setup();
      const { store } = await at.open();
      await store.change([near], { by: "test", project: "a" });
      const { results } = await store.change([near], { by: "test", project: "b" });
      expect(results[0]).toMatchObject({ revision: 1, outcome: "same" });
      expect(store.current().bridges.get("near")?.project).toBe("b");
      await store.change([near], by);
      expect(store.current().bridges.get("near")?.project).toBe("b");
    });

    test("previews a change and makes nothing", async () => {
      await using at = await setup();
      const { store } = await at.open();
      expect(store.preview([near], by).results[0]?.outcome).toBe("created");
      expect(store.current().version).toBe(0);
    });
  });
}
