/** The command that hands over to Bun: nothing that it runs may notice that it is there. */
import { describe, expect, test } from "bun:test";
import { realpathSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isThere, ManagedProcess } from "../brokers/process.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";

const command = resolve(import.meta.dir, "../../src/cli/isthmus.mjs");
const runtime = Bun.which("node") ?? process.execPath;

const program = `
process.on("SIGTERM", () => console.log("signal"));
if (process.argv[2] === "exit") process.exit(7);
if (process.argv[2] === "die") process.kill(process.pid, "SIGKILL");
console.log([process.pid, process.cwd(), ...process.argv.slice(3)].join(" "));
const end = setInterval(() => {}, 1000);
process.stdin.on("data", () => process.exit(0));
`;

describe("the isthmus command", () => {
  test("ends with the exit code of what it ran", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "program.ts");
    await writeFile(file, program);
    const codeOf = (mode: string): number | null =>
      Bun.spawnSync([runtime, command, "--run", file, mode]).exitCode;
    expect(codeOf("exit")).toBe(7);
    expect(codeOf("die")).toBe(128 + 9);
  });

  test("keeps the working folder, and passes a signal on once however often it comes", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "program.ts");
    await writeFile(file, program);
    const child = Bun.spawn([runtime, command, "--run", file, "wait", "a b", "--c"], {
      cwd: folder.path,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    const reader = child.stdout.getReader();
    let output = "";
    const readUntil = async (text: string): Promise<void> => {
      while (!output.includes(text)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`ended before it wrote "${text}": ${output}`);
        output += new TextDecoder().decode(value);
      }
    };
    await readUntil("\n");
    expect(output.trim().split(" ").slice(1).join(" ")).toBe(
      `${realpathSync(folder.path)} a b --c`,
    );
    child.kill("SIGTERM");
    child.kill("SIGTERM");
    await readUntil("signal");
    child.kill("SIGTERM");
    await child.stdin.write("end\n");
    await child.stdin.end();
    expect(await child.exited).toBe(0);
    expect(output.split("signal").length - 1).toBe(1);
  });

  test("takes what it runs with it when it is killed", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "program.ts");
    await writeFile(file, program);
    const running = new ManagedProcess({
      name: "isthmus",
      command: [runtime, command, "--run", file, "wait"],
      cwd: folder.path,
    });
    const first = await waitFor("it runs", () => running.lines.find((line) => /^\d/.test(line)));
    const pid = Number(first.split(" ")[0]);
    await running.stop("SIGKILL", 0);
    await waitFor("the program has ended", () => !isThere(pid));
  });
});
