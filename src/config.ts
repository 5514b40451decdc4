/**
 * Settings: flags, environment and `isthmus.yaml` become one frozen Config, in this order of
 * weight. The only reader of the environment.
 */
import { isAbsolute, join, resolve } from "node:path";
import { parse } from "yaml";
import { errorText, InvalidError } from "./errors.ts";
import { parseProxies } from "./http/proxies.ts";
import type { HookTotals } from "./http/services.ts";
import {
  hookConcurrencyMax,
  hookRateMax,
  hooksConcurrencyDefault,
  hooksMemoryBytesDefault,
} from "./limits.ts";
import { BYTES_FORM, parseByteCount, parseRate, RATE_FORM } from "./rules/units.ts";

/** All settings, resolved. */
export interface Config {
  /** Absolute path of the data folder. */
  readonly dataFolder: string;
  readonly host: string;
  readonly port: number;
  /** Set when administration has a listener of its own. */
  readonly adminHost: string | null;
  readonly adminPort: number | null;
  readonly publicUrl: string | null;
  readonly trustProxies: readonly string[];
  /** The limits of all hooks together. */
  readonly hookLimits: HookTotals;
  /** Origins whose pages may call, beside the gateway's own. */
  readonly origins: readonly string[];
  /** Limits of clients: `parseClientLimits` reads it. */
  readonly clientLimits: string;
  readonly tlsCert: string | null;
  readonly tlsKey: string | null;
  /** Null: the embedded database in the data folder. */
  readonly databaseUrl: string | null;
  /** Null: made at the first start, in DATA/admin-token. */
  readonly adminToken: string | null;
  /** Null: made at the first start, in DATA/secret-key. */
  readonly secretKey: string | null;
  /** A definitions file applied at start. */
  readonly definitionsPath: string | null;
  /** Go on without the damaged messages that are known at this start. */
  readonly acceptCorruption: boolean;
  /** The least level of the log lines. */
  readonly logLevel: LogLevel;
  /** What `${env:NAME}` in a definition resolves to. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Levels of log lines. */
export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The settings' names: in the environment, and in `isthmus.yaml` and as flags. */
export const SETTINGS = {
  data: "ISTHMUS_DATA",
  host: "ISTHMUS_HOST",
  port: "ISTHMUS_PORT",
  adminHost: "ISTHMUS_ADMIN_HOST",
  adminPort: "ISTHMUS_ADMIN_PORT",
  publicUrl: "ISTHMUS_PUBLIC_URL",
  trustProxies: "ISTHMUS_TRUST_PROXIES",
  hooksRate: "ISTHMUS_HOOKS_RATE",
  hooksConcurrency: "ISTHMUS_HOOKS_CONCURRENCY",
  hooksMemory: "ISTHMUS_HOOKS_MEMORY",
  origins: "ISTHMUS_ORIGINS",
  clientLimits: "ISTHMUS_CLIENT_LIMITS",
  tlsCert: "ISTHMUS_TLS_CERT",
  tlsKey: "ISTHMUS_TLS_KEY",
  databaseUrl: "DATABASE_URL",
  log: "ISTHMUS_LOG",
  adminToken: "ISTHMUS_ADMIN_TOKEN",
  secretKey: "ISTHMUS_SECRET_KEY",
  config: "ISTHMUS_CONFIG",
  acceptCorruption: "ISTHMUS_ACCEPT_CORRUPTION",
  logLevel: "ISTHMUS_LOG_LEVEL",
} as const;

export type SettingName = keyof typeof SETTINGS;

/** Where the gateway listens when nothing else is said. */
export const DEFAULT_PORT = 8420;

/** What settings are read from. */
export interface SettingSources {
  readonly flags?: Partial<Record<SettingName, string | undefined>>;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** The folder of `isthmus.yaml` and of relative paths. */
  readonly folder?: string;
}

/**
 * Reads the settings. @throws InvalidError naming the setting, its value and what would be right.
 */
export async function readConfig(sources: SettingSources = {}): Promise<Config> {
  const environment = sources.environment ?? process.env;
  const folder = sources.folder ?? process.cwd();
  const file = await readSettingsFile(join(folder, "isthmus.yaml"));
  const read = (name: SettingName): string | null => {
    const value = sources.flags?.[name] ?? environment[SETTINGS[name]] ?? file[name];
    return value === undefined || value === "" ? null : value;
  };
  const log = read("log") ?? "file";
  if (log !== "file") {
    throw new InvalidError(
      `${SETTINGS.log}: "${log}" is not available yet; the log of this release is "file"`,
    );
  }
  const databaseUrl = read("databaseUrl");
  if (databaseUrl !== null && !/^postgres(ql)?:\/\//.test(databaseUrl)) {
    throw new InvalidError(`${SETTINGS.databaseUrl}: give a URL such as postgres://user@host/name`);
  }
  const host = read("host") ?? "127.0.0.1";
  const path = (name: SettingName): string | null => {
    const value = read(name);
    return value === null || isAbsolute(value) ? value : resolve(folder, value);
  };
  return Object.freeze({
    dataFolder: path("data") ?? resolve(folder, "data"),
    host,
    port: portOf("port", read("port")) ?? DEFAULT_PORT,
    ...adminListener(read("adminHost"), portOf("adminPort", read("adminPort")), host),
    publicUrl: read("publicUrl"),
    trustProxies: parseProxies(read("trustProxies") ?? ""),
    hookLimits: hookLimitsOf(read),
    origins: (read("origins") ?? "").split(/[\s,]+/).filter((each) => each !== ""),
    clientLimits: read("clientLimits") ?? "",
    tlsCert: path("tlsCert"),
    tlsKey: path("tlsKey"),
    databaseUrl,
    adminToken: read("adminToken"),
    secretKey: read("secretKey"),
    definitionsPath: path("config"),
    acceptCorruption: flagOf("acceptCorruption", read("acceptCorruption")),
    logLevel: levelOf(read("logLevel") ?? "info"),
    environment,
  });
}

/** One of the two is enough for a listener of its own. */
function adminListener(
  adminHost: string | null,
  adminPort: number | null,
  host: string,
): Pick<Config, "adminHost" | "adminPort"> {
  if (adminHost === null && adminPort === null) return { adminHost: null, adminPort: null };
  return { adminHost: adminHost ?? host, adminPort: adminPort ?? DEFAULT_PORT + 1 };
}

function portOf(name: SettingName, value: string | null): number | null {
  if (value === null) return null;
  const port = Number(value);
  if (!/^\d+$/.test(value) || port > 65_535) {
    throw new InvalidError(`${SETTINGS[name]}: "${value}" is not a port; give 1 to 65535`);
  }
  return port;
}

function flagOf(name: SettingName, value: string | null): boolean {
  if (value === null || value === "false") return false;
  if (value === "true") return true;
  throw new InvalidError(`${SETTINGS[name]}: "${value}" is neither true nor false`);
}

function hookLimitsOf(read: (name: SettingName) => string | null): HookTotals {
  const [rateText, countText, bytesText] = [
    read("hooksRate"),
    read("hooksConcurrency"),
    read("hooksMemory"),
  ];
  const rate = rateText === null ? null : parseRate(rateText, hookRateMax);
  if (rateText !== null && rate === null) {
    throw new InvalidError(`${SETTINGS.hooksRate}: "${rateText}" is no rate; give ${RATE_FORM}`);
  }
  const concurrency = countText === null ? hooksConcurrencyDefault : Number(countText);
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > hookConcurrencyMax) {
    const form = `a whole number from 1 to ${hookConcurrencyMax}`;
    throw new InvalidError(`${SETTINGS.hooksConcurrency}: "${countText}"; give ${form}`);
  }
  const memoryBytes = bytesText === null ? hooksMemoryBytesDefault : parseByteCount(bytesText);
  if (memoryBytes === null || memoryBytes < 1) {
    throw new InvalidError(`${SETTINGS.hooksMemory}: "${bytesText}"; give ${BYTES_FORM}`);
  }
  return { rate, concurrency, memoryBytes };
}

function levelOf(value: string): LogLevel {
  const level = LOG_LEVELS.find((each) => each === value);
  if (level !== undefined) return level;
  const known = LOG_LEVELS.join(", ");
  throw new InvalidError(`${SETTINGS.logLevel}: "${value}" is no level; there are ${known}`);
}

async function readSettingsFile(path: string): Promise<Partial<Record<SettingName, string>>> {
  const file = Bun.file(path);
  if (!(await file.exists())) return {};
  let content: unknown;
  try {
    content = parse(await file.text());
  } catch (error) {
    throw new InvalidError(`isthmus.yaml can't be read: ${errorText(error)}`, [], { cause: error });
  }
  if (content === null) return {};
  if (typeof content !== "object" || Array.isArray(content)) {
    throw new InvalidError("isthmus.yaml holds settings, such as `port: 8420`");
  }
  const settings: Partial<Record<SettingName, string>> = {};
  for (const [name, value] of Object.entries(content)) {
    if (!(name in SETTINGS)) {
      const known = Object.keys(SETTINGS).join(", ");
      throw new InvalidError(`isthmus.yaml: there is no setting "${name}"; there are ${known}`);
    }
    if (typeof value !== "string" && typeof value !== "number") {
      throw new InvalidError(`isthmus.yaml: ${name} is a text or a number`);
    }
    settings[name as SettingName] = String(value);
  }
  return settings;
}
