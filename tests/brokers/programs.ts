/**
 * The programs that tests need beside Bun: found on the machine, else installed with Debian's
 * package manager where that is allowed (root, and CI, `npm test` or ISTHMUS_TEST_INSTALL=1).
 * What is installed leaves no service behind, neither running nor enabled.
 */
import { chmod, rm, writeFile } from "node:fs/promises";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { runToEnd } from "./process.ts";

/** A program to be found by `findProgram`. */
export type ProgramName =
  | "chromium"
  | "epmd"
  | "initdb"
  | "java"
  | "javac"
  | "kcat"
  | "mosquitto"
  | "mosquitto_pub"
  | "mvn"
  | "rabbitmq-server"
  | "strace";

interface Program {
  /** Debian's packages, the first that the machine's release knows. */
  readonly packages: readonly string[];
  /** Folders where it is besides PATH, looked at first; one `*` stands for a version. */
  readonly folders?: readonly string[];
  /** Whether what was found can be used; without it, it can. */
  works?(path: string): boolean;
  /** The system's service of the package, which must not run because of us. */
  readonly service?: string;
}

const programs: Readonly<Record<ProgramName, Program>> = {
  chromium: { packages: ["chromium"], folders: ["/Applications/Chromium.app/Contents/MacOS"] },
  epmd: { packages: ["erlang-base"] },
  initdb: {
    packages: ["postgresql"],
    folders: [
      "/usr/lib/postgresql/*/bin",
      "/opt/homebrew/opt/postgresql*/bin",
      "/usr/local/opt/postgresql*/bin",
    ],
    service: "postgresql",
  },
  java: { packages: ["openjdk-17-jre-headless", "default-jre-headless"], works: isJavaNewEnough },
  javac: { packages: ["openjdk-17-jdk-headless", "default-jdk-headless"] },
  kcat: { packages: ["kcat"] },
  mosquitto: { packages: ["mosquitto"], service: "mosquitto" },
  mosquitto_pub: { packages: ["mosquitto-clients"] },
  mvn: { packages: ["maven"] },
  // The script itself: the one in PATH is a wrapper that insists on root or the user `rabbitmq`.
  "rabbitmq-server": {
    packages: ["rabbitmq-server"],
    folders: [
      "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
      "/opt/homebrew/opt/rabbitmq/sbin",
      "/usr/local/opt/rabbitmq/sbin",
    ],
    service: "rabbitmq-server",
  },
  strace: { packages: ["strace"] },
};

/** Folders that a user's PATH often lacks. */
const moreFolders = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin"];
const javaMajorMin = 17;
const policyPath = "/usr/sbin/policy-rc.d";

/**
 * A program that a test needs can't be had on this machine: the test is skipped, in CI it fails.
 */
export class UnavailableError extends Error {}

/** The path of a program, or null. */
export function locateProgram(name: ProgramName): string | null {
  for (const pattern of programs[name].folders ?? []) {
    const found = expandVersion(pattern).find((folder) => existsSync(join(folder, name)));
    if (found !== undefined) return join(found, name);
  }
  const path = Bun.which(name, { PATH: [process.env["PATH"] ?? "", ...moreFolders].join(":") });
  return path === null || programs[name].works?.(path) === false ? null : path;
}

/** Kafka 4 needs Java 17; macOS has a `java` that only says where to get one. */
function isJavaNewEnough(path: string): boolean {
  const { exitCode, stderr } = Bun.spawnSync([path, "-version"]);
  const major = /version "(\d+)/.exec(stderr.toString())?.[1];
  return exitCode === 0 && Number(major) >= javaMajorMin;
}

/** The path of a program. @throws UnavailableError when the machine does not have it. */
export function findProgram(name: ProgramName): string {
  const path = locateProgram(name);
  if (path === null) throw new UnavailableError(`"${name}" is not on this machine`);
  return path;
}

/** The folders that a pattern with one `*` stands for, newest version first. */
function expandVersion(pattern: string): string[] {
  const star = pattern.indexOf("*");
  if (star < 0) return [pattern];
  const parent = pattern.slice(0, pattern.lastIndexOf("/", star));
  const rest = pattern.slice(parent.length + 1);
  const [start = "", end = ""] = (rest.split("/")[0] ?? "").split("*");
  const below = rest.split("/").slice(1);
  if (!existsSync(parent)) return [];
  return readdirSync(parent)
    .filter((name) => name.startsWith(start) && name.endsWith(end))
    .toSorted((a, b) => b.localeCompare(a, "en", { numeric: true }))
    .map((name) => join(parent, name, ...below));
}

/** True when missing programs may be installed. */
export function mayInstall(): boolean {
  const asked = process.env["ISTHMUS_TEST_INSTALL"] === "1" || process.env["CI"] === "true";
  return asked && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
}

/** Which of the programs are missing and can't be installed, as a reason to skip; else null. */
export function missingPrograms(names: readonly ProgramName[]): string | null {
  const missing = names.filter((name) => locateProgram(name) === null);
  return missing.length === 0 || mayInstall() ? null : `${missing.join(", ")} missing here`;
}

/**
 * Makes sure that the programs are there. Calls run one after another.
 * @throws UnavailableError naming what is missing, with the reason.
 */
export function ensurePrograms(names: readonly ProgramName[]): Promise<void> {
  const turn = lastInstallation.then(() => installMissing(names));
  lastInstallation = turn.catch(() => undefined);
  return turn;
}

let lastInstallation: Promise<void> = Promise.resolve();

async function installMissing(names: readonly ProgramName[]): Promise<void> {
  const missing = names.filter((name) => locateProgram(name) === null);
  if (missing.length === 0) return;
  if (!mayInstall()) {
    throw new UnavailableError(
      `${missing.join(", ")} missing on this machine (as root on Debian, \`npm test\` installs it)`,
    );
  }
  try {
    await aptInstall(missing);
  } catch (error) {
    throw new UnavailableError(`${missing.join(", ")} could not be installed: ${String(error)}`);
  }
  for (const name of missing) findProgram(name);
}

async function aptInstall(names: readonly ProgramName[]): Promise<void> {
  await apt(["update"]);
  const packages = names.map((name) => knownPackage(programs[name].packages));
  const denies = !existsSync(policyPath);
  if (denies) {
    // What Debian asks before a package starts its service; 101 means "not allowed".
    await writeFile(policyPath, "#!/bin/sh\nexit 101\n");
    await chmod(policyPath, 0o755);
  }
  try {
    await apt(["install", "-y", "--no-install-recommends", ...packages]);
    if (existsSync("/usr/bin/systemctl")) await disableServices(names);
  } finally {
    if (denies) await rm(policyPath, { force: true });
  }
}

function apt(args: readonly string[]): Promise<void> {
  return runToEnd({
    name: `apt-get ${args[0]}`,
    command: ["/usr/bin/apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", ...args],
    cwd: "/",
    env: { DEBIAN_FRONTEND: "noninteractive" },
  });
}

function knownPackage(packages: readonly string[]): string {
  const known = packages.find(
    (name) => Bun.spawnSync(["/usr/bin/apt-cache", "show", name]).exitCode === 0,
  );
  return known ?? packages.join(" ");
}

async function disableServices(names: readonly ProgramName[]): Promise<void> {
  for (const { service } of names.map((name) => programs[name])) {
    if (service === undefined) continue;
    const command: [string, ...string[]] = ["/usr/bin/systemctl", "disable", "--quiet", service];
    await runToEnd({ name: `systemctl disable ${service}`, command, cwd: "/" });
  }
}
