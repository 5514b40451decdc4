/**
 * What tests fetch from Maven Central, kept in the user's cache: a fresh clone does not fetch it
 * again. What is there is whole; two processes may fetch the same at once.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { runToEnd } from "./process.ts";
import { findProgram, UnavailableError } from "./programs.ts";

/** An artifact by its coordinates. */
export interface Artifact {
  readonly group: string;
  readonly name: string;
  readonly version: string;
}

/** Where something is kept, whether it is there or not. */
export function cacheFolder(name: string): string {
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return join(cache, "isthmus", name);
}

/**
 * The folder of a distribution (the artifact's `bin` archive), unpacked.
 * @throws UnavailableError when it can't be had.
 */
export function distribution({ group, name, version }: Artifact): Promise<string> {
  return cached(`${name}-${version}`, async (spare) => {
    const archive = `${group}:${name}:${version}:tar.gz:bin`;
    await maven(spare, ["dependency:copy", `-Dartifact=${archive}`, `-DoutputDirectory=${spare}`]);
    await mkdir(join(spare, "made"));
    await runToEnd({
      name: "tar",
      command: [
        "tar",
        "-xzf",
        join(spare, `${name}-${version}-bin.tar.gz`),
        "-C",
        join(spare, "made"),
        "--strip-components=1",
      ],
      cwd: spare,
    });
  });
}

/**
 * A folder of the cache with the jars of artifacts and all that they need at run time.
 * @throws UnavailableError when they can't be had.
 */
export function jars(name: string, artifacts: readonly Artifact[]): Promise<string> {
  return cached(name, async (spare) => {
    await writeFile(join(spare, "pom.xml"), pom(artifacts));
    const to = `-DoutputDirectory=${join(spare, "made")}`;
    await maven(spare, ["dependency:copy-dependencies", "-DincludeScope=runtime", to]);
  });
}

function maven(folder: string, args: readonly string[]): Promise<void> {
  return runToEnd({
    name: "Maven",
    command: [findProgram("mvn"), "-q", "-B", ...args],
    cwd: folder,
  });
}

async function cached(name: string, make: (spare: string) => Promise<void>): Promise<string> {
  const folder = cacheFolder(name);
  if (existsSync(folder)) return folder;
  await mkdir(join(folder, ".."), { recursive: true });
  const spare = await mkdtemp(`${folder}-`);
  try {
    await make(spare);
    await renameUnlessThere(join(spare, "made"), folder);
  } catch (error) {
    throw new UnavailableError(`${name} could not be fetched: ${String(error)}`);
  } finally {
    await rm(spare, { recursive: true, force: true });
  }
  return folder;
}

/** When another process was quicker, what it has made is the same. */
async function renameUnlessThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!existsSync(to)) throw error;
  }
}

function pom(artifacts: readonly Artifact[]): string {
  const dependencies = artifacts.map(
    ({ group, name, version }) =>
      `<dependency><groupId>${group}</groupId><artifactId>${name}</artifactId>` +
      `<version>${version}</version></dependency>`,
  );
  return `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>isthmus</groupId><artifactId>jars-for-tests</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    ${dependencies.join("\n    ")}
  </dependencies>
</project>
`;
}
