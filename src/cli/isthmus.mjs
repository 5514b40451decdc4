#!/usr/bin/env node
/**
 * The command that a person types, and what every package script calls. Plain JavaScript without
 * dependencies, for Node ≥ 20 and for Bun. It installs what is missing into the project's own
 * node_modules, then hands over to the pinned Bun: `isthmus.mjs ARGS…` runs src/cli/main.ts,
 * `isthmus.mjs --run FILE ARGS…` runs FILE. It never changes the working folder, passes signals
 * on exactly once, and ends with the exit code of what it ran.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const modules = join(root, "node_modules");
const stampPath = join(modules, ".isthmus-installed.json");
const lockPath = join(modules, ".isthmus-installing");
const underBun = process.versions.bun !== undefined;

/** The oldest Node that can run this file and npm's current clients. */
const nodeMajorMin = 20;
/** The holder of the lock touches it this often; untouched for longer than the maximum, it is dead. */
const lockTouchMs = 2_000;
const lockUntouchedMsMax = 30_000;
/** How long to wait for somebody else's installation before giving up. */
const lockWaitMsMax = 600_000;
/**
 * One Ctrl-C arrives more than once: from the terminal, and again from npm, which passes it on to
 * its children. What comes again within this time is the same signal.
 */
const sameSignalMs = 500;
/** Bun's package holds a short text in place of its binary when install scripts were blocked. */
const binaryBytesMin = 1_000_000;

class SetupError extends Error {}

/** What has to be the same for an installation to be up to date. */
function wantedHash() {
  const hash = createHash("sha256").update(`${process.platform} ${process.arch}\n`);
  for (const name of ["package.json", "bun.lock"]) hash.update(readFileSync(join(root, name)));
  return hash.digest("hex");
}

/** The path of the Bun to run when everything is installed, else null. */
function installedBun(hash) {
  if (!existsSync(stampPath)) return null;
  const stamp = parseStamp(readFileSync(stampPath, "utf8"));
  if (stamp.hash !== hash) return null;
  if (stamp.bun === null) return underBun ? realpathSync(process.execPath) : null;
  const path = join(modules, stamp.bun);
  return existsSync(path) ? path : null;
}

/** A stamp that cannot be read is no stamp: the answer to it is to install. */
function parseStamp(text) {
  try {
    const { hash, bun } = JSON.parse(text);
    return { hash, bun };
  } catch {
    return { hash: null, bun: null };
  }
}

/** Runs a program to its end; its output is kept for the case that it fails. */
function run(command, args, cwd) {
  return new Promise((resolve) => {
    const chunks = [];
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    const end = (result) => {
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
        process.removeListener(signal, onSignal);
      resolve({ output: Buffer.concat(chunks).toString(), ...result });
    };
    const onSignal = (signal) => {
      child.kill(signal);
      unlock();
      process.exit(128 + constants.signals[signal]);
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, onSignal);
    child.stdout.on("data", (chunk) => chunks.push(chunk));
    child.stderr.on("data", (chunk) => chunks.push(chunk));
    child.on("error", (error) => end({ code: null, missing: error.code === "ENOENT" }));
    child.on("close", (code) => end({ code, missing: false }));
  });
}

async function runOrFail(command, args, cwd) {
  const { code, missing, output } = await run(command, args, cwd);
  if (code === 0) return;
  if (missing) {
    throw new SetupError(`${command} was not found. Isthmus needs Node ≥ 20 with npm, or Bun.`);
  }
  process.stderr.write(output.endsWith("\n") ? output : `${output}\n`);
  const words = [command.split("/").pop(), ...args.slice(0, 2)].join(" ");
  throw new SetupError(`could not install the dependencies: \`${words}\` failed, see above.`);
}

/**
 * The real binary in a node_modules folder, relative to it. Where install scripts are blocked, it
 * is still in the package of its platform; there may be several (for older processors, for musl).
 */
function bunIn(folder) {
  const candidates = [join("bun", "bin", "bun.exe")];
  const scope = join(folder, "@oven");
  if (existsSync(scope)) {
    for (const name of readdirSync(scope)) candidates.push(join("@oven", name, "bin", "bun"));
  }
  return candidates.find((name) => isWorking(join(folder, name))) ?? null;
}

function isWorking(path) {
  if (!existsSync(path) || statSync(path).size < binaryBytesMin) return false;
  return spawnSync(path, ["--version"], { stdio: "ignore" }).status === 0;
}

/** Installs with the Bun that runs this, with the one installed already, or with one from npm. */
async function installModules(version) {
  const args = ["install", "--frozen-lockfile"];
  if (underBun) return runOrFail(realpathSync(process.execPath), args, root);
  const manifestPath = join(modules, "bun", "package.json");
  const present =
    existsSync(manifestPath) && JSON.parse(readFileSync(manifestPath, "utf8")).version;
  const own = present === version ? bunIn(modules) : null;
  if (own !== null) return runOrFail(join(modules, own), args, root);

  const folder = mkdtempSync(join(tmpdir(), "isthmus-bun-"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
    const quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund"];
    await runOrFail("npm", ["install", `bun@${version}`, "--prefix", folder, ...quiet], folder);
    const bun = bunIn(join(folder, "node_modules"));
    if (bun === null) throw new SetupError(`Bun ${version} does not run on this machine.`);
    await runOrFail(join(folder, "node_modules", bun), args, root);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Makes node_modules what the lock file says, unless another process did so meanwhile. */
async function install(hash) {
  await lock();
  const touching = setInterval(touchLock, lockTouchMs);
  try {
    const done = installedBun(hash);
    if (done !== null) return done;
    process.stderr.write("Installing what is missing …\n");
    const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    await installModules(dependencies.bun);
    const bun = bunIn(modules);
    if (bun === null && !underBun) {
      throw new SetupError(`Bun ${dependencies.bun} does not run on this machine.`);
    }
    linkCommand();
    const spare = `${stampPath}.${randomUUID()}`;
    writeFileSync(spare, `${JSON.stringify({ hash, bun })}\n`);
    renameSync(spare, stampPath);
    return bun === null ? realpathSync(process.execPath) : join(modules, bun);
  } finally {
    clearInterval(touching);
    unlock();
  }
}

/** Lets `npx isthmus` find the command in the clone itself, as if it were a dependency. */
function linkCommand() {
  const link = join(modules, ".bin", "isthmus");
  rmSync(link, { force: true });
  symlinkSync(relative(dirname(link), fileURLToPath(import.meta.url)), link);
}

/**
 * Takes the lock: a folder that is renamed into place with its owner's pid inside, so that it
 * never exists without one. A dead owner's folder is renamed away first.
 */
async function lock() {
  mkdirSync(modules, { recursive: true });
  const spare = `${lockPath}.${randomUUID()}`;
  mkdirSync(spare);
  writeFileSync(join(spare, "pid"), `${process.pid}\n`);
  for (let waitedMs = 0; !tryRename(spare, lockPath); waitedMs += 200) {
    if (waitedMs === 0 && !isAbandoned()) {
      process.stderr.write("Waiting for another process that is installing …\n");
    }
    if (waitedMs > lockWaitMsMax) {
      rmSync(spare, { recursive: true, force: true });
      throw new SetupError(`another process has been installing for long: see ${lockPath}`);
    }
    if (isAbandoned() && tryRename(lockPath, `${spare}.old`)) {
      rmSync(`${spare}.old`, { recursive: true, force: true });
    }
    await sleep(200);
  }
}

/** Renaming onto a folder that holds something fails, whoever comes first wins. */
function tryRename(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST", "ENOENT"].includes(error.code)) return false;
    throw error;
  }
}

/** True when the lock's owner is gone, or has not touched it for long (another container's pid). */
function isAbandoned() {
  try {
    if (Date.now() - statSync(lockPath).mtimeMs > lockUntouchedMsMax) return true;
    process.kill(Number(readFileSync(join(lockPath, "pid"), "utf8")), 0);
    return false;
  } catch (error) {
    // ENOENT: the owner has just released it, which the next try to rename will find out.
    return error.code === "ESRCH";
  }
}

function touchLock() {
  if (existsSync(lockPath)) utimesSync(lockPath, new Date(), new Date());
}

function unlock() {
  rmSync(lockPath, { recursive: true, force: true });
}

/**
 * Runs the program in a session of its own: a Ctrl-C then reaches only this process, which passes
 * it on once, whatever the terminal, npm and a shell each do with it. `--no-orphans` ends the
 * program when this process is killed.
 */
function handOver(bun, args) {
  const pinned = bun.startsWith(modules);
  const flags = pinned ? ["--no-orphans"] : [];
  const child = spawn(bun, [...flags, ...args], { stdio: "inherit", detached: true });
  const passedAt = new Map();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => {
      const now = performance.now();
      const again = now - (passedAt.get(signal) ?? Number.NEGATIVE_INFINITY) < sameSignalMs;
      passedAt.set(signal, now);
      if (!again) child.kill(signal);
    });
  }
  // What a terminal tells its own session only: a new size, and Ctrl-Z with its end.
  process.on("SIGWINCH", () => child.kill("SIGWINCH"));
  process.on("SIGCONT", () => child.kill("SIGCONT"));
  process.on("SIGTSTP", () => {
    child.kill("SIGSTOP");
    process.kill(process.pid, "SIGSTOP");
  });
  child.on("error", (error) => fail(`could not start Bun: ${error.message}`));
  child.on("exit", (code, signal) => {
    process.exit(code ?? 128 + (constants.signals[signal] ?? 0));
  });
}

function fail(sentence) {
  process.stderr.write(`isthmus: ${sentence}\n`);
  process.exit(1);
}

async function main() {
  if (!underBun && Number.parseInt(process.versions.node, 10) < nodeMajorMin) {
    return fail(
      `Node ${process.versions.node} is too old: Node ≥ ${nodeMajorMin} or Bun is needed.`,
    );
  }
  const [first, file, ...rest] = process.argv.slice(2);
  if (first === "--run" && file === undefined) return fail("--run needs the file to run.");
  const hash = wantedHash();
  const bun = installedBun(hash) ?? (await install(hash));
  const args =
    first === "--run"
      ? [resolve(root, file), ...rest]
      : [join(root, "src", "cli", "main.ts"), ...process.argv.slice(2)];
  handOver(bun, args);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupError) && error.code === undefined) throw error;
  fail(error.message);
}
