/**
 * Programs that tests take from the Python package index: the `websockets` library and Deno's
 * binary. Installed once into the user's cache, whole or not at all.
 */
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

const packages = ["websockets==17.4", "deno==2.9.8"];

/** What was installed, or why it was not: tests that need it are skipped then, and fail in CI. */
export type PypiTools =
  | {
      readonly missing: null;
      readonly python: string;
      readonly folder: string;
      readonly deno: string;
    }
  | { readonly missing: string };

/** Installs what is not there yet. Two that do it at once end with the same. */
export async function pypiTools(): Promise<PypiTools> {
  const python = Bun.which("python3");
  if (python === null) return { missing: "there is no python3" };
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const folder = join(cache, "isthmus", packages.join("-").replaceAll("==", "-"));
  const tools = { missing: null, python, folder, deno: join(folder, "bin/deno") } as const;
  if (existsSync(folder)) return tools;
  const own = `${folder}.${process.pid}`;
  await mkdir(join(cache, "isthmus"), { recursive: true });
  const pip = Bun.spawnSync(
    [
      python,
      "-m",
      "pip",
      "install",
      "-q",
      "--disable-pip-version-check",
      "--target",
      own,
      ...packages,
    ],
    { timeout: 120_000 },
  );
  try {
    if (pip.exitCode !== 0) return { missing: `pip: ${pip.stderr.toString().slice(-300)}` };
    await rename(own, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error;
    });
    return tools;
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

/** Whether tests that need them have to be skipped. */
export function mustSkip(tools: PypiTools): boolean {
  return tools.missing !== null && process.env["CI"] !== "true";
}
