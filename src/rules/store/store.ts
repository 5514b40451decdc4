/**
 * The store: where definitions, secrets and tokens live, and the one place that changes them.
 * A change is planned whole, written in one transaction, put in the synced snapshot, and only
 * then is it what `current` answers. While the database is away `current`, tokens and secrets go
 * on from memory, and changes are refused.
 */
import type { Clock } from "../../clock.ts";
import { errorText, GatewayError, InvalidError } from "../../errors.ts";
import { type Accepted, bridgesOf, noDefinitions, type Parse, parseStored } from "./accepted.ts";
import { type ChangeResult, type Plan, planChanges } from "./change.ts";
import type { Change, ChangeContext, Definition, Definitions, Kind } from "../document.ts";
import { type Files, systemFiles } from "./files.ts";
import { EmbeddedKeeper } from "./keep-embedded.ts";
import { PostgresKeeper } from "./keep-postgres.ts";
import { accepted, type Keeper, type KeeperOptions, type Planner } from "./keeper.ts";
import { adminToken, adminTokenPath, keyring, secretKeyPath } from "./keys.ts";
import { resolveReferences } from "./references.ts";
import { loadRevisions } from "./rows.ts";
import type { Keyring } from "./secrets.ts";
import { keyOf, type StoredRevision } from "./state.ts";
import { Tokens } from "./tokens.ts";
import { Notices, Turns } from "./turns.ts";

/** What the store is opened with. */
export interface StoreOptions {
  /** The data folder; the caller holds its lock. */
  readonly dataFolder: string;
  /** `DATABASE_URL`; null: the embedded database. */
  readonly databaseUrl: string | null;
  /** `ISTHMUS_SECRET_KEY`; null: the data folder's file, made at the first start. */
  readonly secretKey: string | null;
  /** `ISTHMUS_ADMIN_TOKEN`; null: the data folder's file, made at the first start. */
  readonly adminToken: string | null;
  readonly parse: Parse;
  /** Checks that need the rest of the gateway; throws InvalidError or ConflictError to refuse. */
  readonly validate?: (next: Definitions, before: Definitions) => void;
  /** Another process has changed the set: `current` answers it already. Must not throw. */
  readonly changed: (definitions: Definitions) => void;
  /** Takes one line about something that an operator should know. */
  readonly warn: (line: string) => void;
  /** The environment, for `${env:NAME}`. */
  readonly env: (name: string) => string | undefined;
  readonly clock: Clock;
  readonly files?: Files;
  /** How long the embedded database stays open unused, milliseconds. */
  readonly idleMs?: number;
}

/** An accepted call of `change`. */
export interface Changed {
  readonly definitions: Definitions;
  /** In the order of the call. */
  readonly results: readonly ChangeResult[];
}

/** Whether definitions can be changed at the moment. */
export type StoreHealth =
  | { readonly ok: true; readonly reason: null }
  | { readonly ok: false; readonly reason: string };

/** The embedded database costs some 300 MB while it is open. */
const IDLE_MS = 60_000;

/**
 * Opens the store: reads the snapshot, or what stands in for it, and checks the secret key.
 * @throws InvalidError the settings are wrong, or a stored document isn't taken by this program.
 * @throws CorruptionError the snapshot is broken and nothing holds as much.
 * @throws DatabaseError there is no snapshot and the database can't be reached.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { dataFolder, files = systemFiles } = options;
  await files.makeFolder(dataFolder);
  if (options.databaseUrl !== null && options.secretKey === null) {
    throw new InvalidError(
      "ISTHMUS_SECRET_KEY is required with DATABASE_URL: every gateway on that database needs the same one",
    );
  }
  const notices = new Notices();
  const keeper = keeperOf({ ...options, files }, () => notices.ring());
  try {
    const started = await keeper.start();
    const current = accepted(started.state, noDefinitions, options.parse);
    const source = { given: options.adminToken, files, path: adminTokenPath(dataFolder) };
    const admin = await adminToken(source);
    const begin = { current, keyring: started.keyring, reason: started.reason, admin };
    return new Store({ ...options, files }, { ...begin, keeper, notices });
  } catch (error) {
    await keeper[Symbol.asyncDispose]();
    throw error;
  }
}

type FullOptions = StoreOptions & { readonly files: Files };

function keeperOf(options: FullOptions, onNotice: () => void): Keeper {
  const { dataFolder, files, parse, warn, clock, databaseUrl, idleMs = IDLE_MS } = options;
  const source = { given: options.secretKey, files, path: secretKeyPath(dataFolder) };
  const shared: KeeperOptions = {
    dataFolder,
    files,
    parse,
    warn,
    keyring: async (proof) => await keyring(source, proof),
  };
  return databaseUrl === null
    ? new EmbeddedKeeper({ ...shared, clock, idleMs })
    : new PostgresKeeper({ ...shared, clock, url: databaseUrl, onNotice });
}

interface Begin {
  readonly current: Accepted;
  readonly keyring: Keyring;
  readonly reason: string | null;
  readonly admin: string;
  readonly keeper: Keeper;
  readonly notices: Notices;
}

/** The store of one gateway; `openStore` makes it. */
export class Store implements AsyncDisposable {
  readonly tokens: Tokens;
  readonly #options: FullOptions;
  readonly #keeper: Keeper;
  readonly #keyring: Keyring;
  readonly #stop = new AbortController();
  readonly #following: Promise<void>;
  #current: Accepted;
  #reason: string | null;
  /** Changes, and what comes from other processes, one after another. */
  readonly #turns = new Turns();
  /** Parsed forms of earlier revisions. */
  readonly #parsed = new WeakMap<StoredRevision, Definition>();

  /** For `openStore`. */
  constructor(options: FullOptions, begin: Begin) {
    this.#options = options;
    this.#keeper = begin.keeper;
    this.#keyring = begin.keyring;
    this.#reason = begin.reason;
    this.#current = begin.current;
    this.tokens = new Tokens({
      clock: options.clock,
      adminToken: begin.admin,
      commit: async (plan) => (await this.#commit(plan)).result,
    });
    this.#adopt(begin.current);
    const isShared = options.databaseUrl !== null;
    this.#following = isShared ? this.#follow(begin.notices) : Promise.resolve();
  }

  /** The last good set. */
  current(): Definitions {
    return this.#current.definitions;
  }

  /**
   * Makes all changes or none; on disk, and what `current` answers, when this resolves.
   * @throws InvalidError a document is wrong; pointers begin with `/KIND/NAME` unless there is
   * one change. @throws ConflictError `in-use` or `conflict`. @throws NotFoundError
   * @throws DatabaseError, StorageError try again later; nothing was changed, save that a change
   * whose confirmation was lost may show up.
   */
  async change(changes: readonly Change[], context: ChangeContext): Promise<Changed> {
    const plan = await this.#commit((base) => this.#planOn(base, changes, context));
    return { definitions: plan.next.definitions, results: plan.result };
  }

  /** What `change` would answer, and changes nothing. Throws as it does. */
  preview(changes: readonly Change[], context: ChangeContext): Changed {
    const plan = this.#planOn(this.#current, changes, context);
    return { definitions: plan.next.definitions, results: plan.result };
  }

  /**
   * A definition as it stood at a revision: the one that stands, and a rule's latest 64. Null when
   * that isn't kept. @throws InvalidError its document isn't taken any more.
   */
  revision(kind: Kind, name: string, revision: number): Definition | null {
    const standing = this.#current.definitions[kind].get(name);
    if (standing?.revision === revision) return standing;
    const history = this.#current.state.history.get(keyOf({ kind, name })) ?? [];
    const stored = history.find((one) => one.revision === revision);
    if (stored === undefined || stored.document === null) return null;
    const known = this.#parsed.get(stored);
    if (known !== undefined) return known;
    const { parse } = this.#options;
    const document = stored.document;
    const parsed = parseStored(
      { ...stored, document },
      parse,
      bridgesOf(this.#current.definitions),
    );
    this.#parsed.set(stored, parsed);
    return parsed;
  }

  /** What ever stood under a name, newest first. @throws DatabaseError the database is away. */
  async revisions(kind: Kind, name: string): Promise<readonly StoredRevision[]> {
    return await this.#turns.take(async () => {
      return await this.#watched(() =>
        this.#keeper.read(this.#current, (tx) => loadRevisions(tx, kind, name)),
      );
    });
  }

  /**
   * The text with `${env:}`, `${file:}` and `${secret:}` replaced by their values; the result is
   * not to be logged or kept. @throws InvalidError something named isn't there.
   */
  async resolveText(text: string): Promise<string> {
    return await resolveReferences(text, {
      env: this.#options.env,
      file: (path) => this.#options.files.read(path),
      secret: (path) => {
        const secret = this.#current.state.secrets.get(path);
        return secret === undefined ? null : this.#keyring.open(secret);
      },
    });
  }

  /** Whether definitions can be changed. Traffic does not depend on it. */
  health(): StoreHealth {
    return this.#reason === null ? { ok: true, reason: null } : { ok: false, reason: this.#reason };
  }

  /** Ends what runs, waits for a change under way, closes the database. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#turns.close();
    await this.#keeper[Symbol.asyncDispose]();
  }

  #planOn(
    base: Accepted,
    changes: readonly Change[],
    context: ChangeContext,
  ): Plan<readonly ChangeResult[]> {
    const { parse, clock, validate = () => undefined } = this.#options;
    const tools = { parse, validate, keyring: this.#keyring, nowMs: clock.nowMs() };
    return planChanges(base, changes, context, tools);
  }

  async #commit<Result>(plan: Planner<Result>): Promise<Plan<Result>> {
    return await this.#turns.take(async () => {
      const withUses: Planner<Result> = (base) => this.tokens.withUses(plan(base));
      const planned = await this.#watched(() => this.#keeper.keep(this.#current, withUses));
      this.#adopt(planned.next);
      return planned;
    });
  }

  #adopt(next: Accepted): void {
    this.#current = next;
    this.tokens.adopt(next.state);
    for (const [name, definition] of next.definitions.rules) {
      const latest = next.state.history.get(keyOf({ kind: "rules", name }))?.at(-1);
      if (latest?.revision === definition.revision) this.#parsed.set(latest, definition);
    }
  }

  /** Notes whether the database and the disk did their part, for `health`. */
  async #watched<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.#reason = this.#keeper.refusal;
      return result;
    } catch (error) {
      const isTheirs = error instanceof GatewayError && error.retryable;
      if (isTheirs) this.#reason = error.message;
      throw error;
    }
  }

  /** Follows what other processes change, until the store is closed. */
  async #follow(notices: Notices): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await notices.wait(this.#options.clock, signal);
      if (signal.aborted) return;
      await this.#turns.join(async () => await this.#catchUp());
    }
  }

  async #catchUp(): Promise<void> {
    const before = this.#reason;
    try {
      const next = await this.#watched(() => this.#keeper.follow(this.#current));
      if (before !== null && this.#reason === null) this.#options.warn("the database is back");
      if (this.#reason !== null && this.#reason !== before) {
        this.#options.warn(`definitions can't be changed: ${this.#reason}`);
      }
      if (next === null) return;
      this.#adopt(next);
      this.#options.changed(next.definitions);
    } catch (error) {
      // The set that stands goes on; the next turn tries again, and `health` says why it must.
      const reason = errorText(error);
      this.#reason = reason;
      if (reason !== before) this.#options.warn(`definitions can't be followed: ${reason}`);
    }
  }
}
