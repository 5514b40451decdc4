/** Mosquitto for tests: plain MQTT on the loopback, nothing dropped for a reader that is away. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import type { Recipe } from "./local.ts";
import { findProgram } from "./programs.ts";

/** CONNECT of MQTT 3.1.1 with a clean session, an empty client id and a keep-alive of 60 s. */
const connectPacket = Uint8Array.of(0x10, 12, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0x02, 0, 60, 0, 0);
const connackType = 0x20;

/** The broker, its files in the folder. */
export async function mosquittoRecipe(folder: string): Promise<Recipe> {
  const port = await freePort();
  const config = join(folder, "mosquitto.conf");
  await mkdir(join(folder, "data"));
  const lines = [
    `listener ${port} 127.0.0.1`,
    "allow_anonymous true",
    "persistence true",
    `persistence_location ${join(folder, "data")}/`,
    // The default drops what an absent reader has not taken beyond 1000 messages.
    "max_queued_messages 0",
    "set_tcp_nodelay true",
    "log_dest stderr",
    ...(process.getuid?.() === 0 ? ["user root"] : []),
  ];
  await writeFile(config, `${lines.join("\n")}\n`);
  return {
    name: "Mosquitto",
    url: `mqtt://127.0.0.1:${port}`,
    folder,
    endSignal: "SIGKILL",
    steps: [
      {
        process: {
          name: "Mosquitto",
          command: [findProgram("mosquitto"), "-c", config],
          cwd: folder,
        },
        ready: { port, request: connectPacket, judge: (answer) => answer[0] === connackType },
      },
    ],
  };
}
