/**
 * Where the running gateway is, and with which token to speak to it: flags, then the environment,
 * then the settings that the gateway itself would read. Nothing is opened here.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { type Config, readConfig } from "../config.ts";
import { InvalidError } from "../errors.ts";
import { CliError, UsageError } from "./failure.ts";

/** The flags of every command that speaks to a running gateway. */
export interface ConnectionFlags {
  readonly server?: string;
  readonly token?: string;
  readonly json?: boolean;
}

/** A gateway's addresses, without a slash at the end, and the token; null: none was found. */
export interface Connection {
  readonly url: string;
  /** Where `/api` answers: the same, unless the settings name a listener for administration. */
  readonly adminUrl: string;
  readonly token: string | null;
  /** Why there is no token, for the answer to a refusal. */
  readonly tokenMissing: string | null;
}

/** Adds the flags that every command has which speaks to a running gateway. */
export function withConnection(command: Command): Command {
  return command
    .option(
      "--server <url>",
      "the gateway (default: ISTHMUS_SERVER, else the settings' host and port)",
    )
    .option(
      "--token <token>",
      "bearer token (default: ISTHMUS_TOKEN, ISTHMUS_ADMIN_TOKEN, else the data folder's admin-token)",
    )
    .option("--json", "print JSON");
}

/**
 * Finds the gateway and the token; calls to this machine go past a proxy of the environment.
 * @throws UsageError an address or a setting is wrong
 */
export async function findConnection(flags: ConnectionFlags): Promise<Connection> {
  const connection = await locate(flags);
  for (const url of [connection.url, connection.adminUrl]) passProxies(new URL(url).hostname);
  return connection;
}

async function locate(flags: ConnectionFlags): Promise<Connection> {
  const settings = await readSettings();
  const { token, missing } = await findToken(flags, settings);
  const server = flags.server ?? environment("ISTHMUS_SERVER");
  if (server !== undefined) {
    const url = serverUrl(server, flags.server === undefined ? "ISTHMUS_SERVER" : "--server");
    return { url, adminUrl: url, token, tokenMissing: missing };
  }
  const scheme = settings.tlsCert === null ? "http" : "https";
  const url = `${scheme}://${reachable(settings.host)}:${settings.port}`;
  const { adminHost, adminPort } = settings;
  if (adminHost === null) return { url, adminUrl: url, token, tokenMissing: missing };
  const adminUrl = `${scheme}://${reachable(adminHost)}:${adminPort ?? settings.port}`;
  return { url, adminUrl, token, tokenMissing: missing };
}

/** The settings that `isthmus serve` would have here. */
async function readSettings(): Promise<Config> {
  try {
    return await readConfig();
  } catch (error) {
    if (error instanceof InvalidError) throw new UsageError(error.message);
    throw error;
  }
}

async function findToken(
  flags: ConnectionFlags,
  settings: Config,
): Promise<{ token: string | null; missing: string | null }> {
  const given = flags.token ?? environment("ISTHMUS_TOKEN") ?? settings.adminToken;
  if (given !== null) {
    if (!/^[\x21-\x7e]+$/.test(given))
      throw new UsageError("the token holds characters that no token has");
    return { token: given, missing: null };
  }
  const path = join(settings.dataFolder, "admin-token");
  try {
    const token = (await readFile(path, "utf8")).trim();
    return token === "" ? { token: null, missing: `${path} is empty` } : { token, missing: null };
  } catch (error) {
    const code = (error as { code?: string }).code;
    if (code === "ENOENT" || code === "ENOTDIR")
      return { token: null, missing: `there is no ${path}` };
    if (code === "EACCES") return { token: null, missing: `${path} may not be read by this user` };
    throw new CliError(`${path} can't be read (${code ?? "unknown"})`, { cause: error });
  }
}

/** A proxy can't reach this machine's own loopback. `fetch` reads the variable at each call. */
function passProxies(hostname: string): void {
  if (hostname !== "localhost" && hostname !== "[::1]" && !hostname.startsWith("127.")) return;
  for (const name of ["NO_PROXY", "no_proxy"]) {
    const before = environment(name);
    process.env[name] = before === undefined ? hostname : `${before},${hostname}`;
  }
}

/** An address to connect to, for one to listen on. */
function reachable(host: string): string {
  if (host === "0.0.0.0" || host === "") return "127.0.0.1";
  if (host === "::" || host === "[::]") return "[::1]";
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function serverUrl(text: string, from: string): string {
  const candidate = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(candidate) ? new URL(candidate) : null;
  if (url === null || !["http:", "https:"].includes(url.protocol) || url.hostname === "") {
    throw new UsageError(`${from}: "${text}" is not an address such as http://127.0.0.1:8420`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new UsageError(`${from}: give the token with --token, not in the address`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

/** A variable of the environment that only commands read; an empty one is not set. */
function environment(name: string): string | undefined {
  const value = process.env[name];
  return value === "" ? undefined : value;
}
