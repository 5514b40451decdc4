/**
 * Files that people write for the gateway: read, parsed, and every fault shown at its place in the
 * file, whether it was found here or by the gateway.
 */
import { readFile } from "node:fs/promises";
import { InvalidError } from "../errors.ts";
import type { ParsedFile } from "../rules/yaml.ts";
import type { Problem } from "./client.ts";
import { CliError } from "./failure.ts";
import { readInput } from "./publish.ts";

/** A file with the name under which its faults are told. */
export interface NamedFile {
  readonly name: string;
  readonly file: ParsedFile;
}

/** Reads and parses a file; `-` is standard input. @throws CliError naming each fault's place */
export async function readDefinitionsFile(path: string): Promise<NamedFile> {
  const { parseFile } = await import("../rules/yaml.ts");
  const name = path === "-" ? "standard input" : path;
  const text = await textOf(path, name);
  return { name, file: inFile(name, () => parseFile(text, name)) };
}

/** The text of the file. @throws CliError it can't be read */
async function textOf(path: string, name: string): Promise<string> {
  const bytes = path === "-" ? await readInput() : await fileBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CliError(`${name} is not UTF-8 text`, { cause });
  }
}

async function fileBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = (error as { code?: string }).code ?? "unknown";
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: "there is no such file",
      EACCES: "it may not be read by this user",
      EISDIR: "it is a folder",
    };
    throw new CliError(`${path} can't be read: ${reasons[code] ?? code}`, { cause: error });
  }
}

/** Carries out a step that finds fault with the file. @throws CliError naming each place */
export function inFile<Result>(name: string, step: () => Result): Result {
  try {
    return step();
  } catch (error) {
    if (error instanceof InvalidError) throw faultsOf(name, error);
    throw error;
  }
}

/** One fault is one line; several follow their count. */
export function faultsOf(name: string, error: InvalidError): CliError {
  if (error.errors.length < 2) return new CliError(error.message, { cause: error });
  const details = error.errors.map(({ line, column, pointer, detail }) => {
    return `${name}:${line ?? 1}:${column ?? 1}: ${pointer === "" ? "" : `${pointer}: `}${detail}`;
  });
  return new CliError(`${name} has ${details.length} faults`, { details, cause: error });
}

/**
 * The gateway's problem as the error that the file can find the places of. `base` is the pointer
 * within the file to what was sent.
 */
export function invalidOf(problem: Problem, base = ""): InvalidError {
  const errors = problem.errors.map(({ pointer, detail, line, column }) => {
    const place = line === null || column === null ? {} : { line, column };
    return { pointer: `${base}${pointer}`, detail, ...place };
  });
  return new InvalidError(problem.detail, errors, { code: "definition-invalid" });
}
