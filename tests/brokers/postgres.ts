/**
 * PostgreSQL for tests: trusts the loopback and never syncs, its data live for one run. What was
 * committed still survives a kill: it is handed to the system, which goes on.
 */
import { chmod, chown, mkdir } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { freePort } from "../temporary.ts";
import type { Recipe } from "./local.ts";
import { findProgram } from "./programs.ts";
import { runToEnd } from "./process.ts";

const settings = {
  fsync: "off",
  full_page_writes: "off",
  unix_socket_directories: "",
  listen_addresses: "127.0.0.1",
  max_connections: "200",
  shared_buffers: "32MB",
  log_min_messages: "fatal",
};

/** The server, its files in the folder. As root it runs as the user `postgres`: it refuses root. */
export async function postgresRecipe(folder: string): Promise<Recipe> {
  const port = await freePort();
  const data = join(folder, "data");
  const user = process.getuid?.() === 0 ? userNamed("postgres") : null;
  await mkdir(data);
  if (user !== null) {
    await chmod(folder, 0o711);
    await chown(data, user.uid, user.gid);
  }
  const initdb = findProgram("initdb");
  const flags = ["-A", "trust", "-U", "postgres", "--locale=C", "--encoding=UTF8", "--no-sync"];
  await runToEnd({ name: "initdb", command: [initdb, "-D", data, ...flags], cwd: data, user });
  const options = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const server = join(dirname(initdb), "postgres");
  return {
    name: "PostgreSQL",
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    folder,
    // Not SIGKILL, which would leave a segment of shared memory behind for each run.
    endSignal: "SIGQUIT",
    steps: [
      {
        process: {
          name: "PostgreSQL",
          command: [server, "-D", data, "-p", String(port), ...options],
          cwd: data,
          user,
        },
        ready: { port, request: startupPacket(), judge: (answer) => answer[0] === 0x52 },
      },
    ],
  };
}

/** StartupMessage of protocol 3.0; the answer `R` means that connections are taken. */
function startupPacket(): Uint8Array {
  const text = Buffer.from("user\0postgres\0database\0postgres\0\0");
  const packet = Buffer.alloc(8 + text.length);
  packet.writeInt32BE(packet.length, 0);
  packet.writeInt32BE(196_608, 4);
  text.copy(packet, 8);
  return packet;
}

function userNamed(name: string): { uid: number; gid: number } {
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((each) => each.startsWith(`${name}:`));
  if (line === undefined) throw new Error(`there is no user "${name}" to run PostgreSQL as`);
  const [, , uid, gid] = line.split(":");
  return { uid: Number(uid), gid: Number(gid) };
}
