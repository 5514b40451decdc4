/**
 * A RabbitMQ of one test's own that is set up further than the shared one: plugins, lines of its
 * configuration, and its control program, to raise alarms and to change users.
 */
import { execFile } from "node:child_process";
import { appendFile, chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { LocalBroker } from "../brokers/local.ts";
import { ensurePrograms, findProgram } from "../brokers/programs.ts";
import { rabbitmqRecipe } from "../brokers/rabbitmq.ts";

const run = promisify(execFile);

/** A running node. Disposing of it ends it and removes its data. */
export interface RabbitNode extends AsyncDisposable {
  readonly url: string;
  readonly broker: LocalBroker;
  /** `rabbitmqctl` with these arguments; its output. */
  ctl(...args: readonly string[]): Promise<string>;
}

/** Starts one. `config` is what stands in `rabbitmq.conf` besides, made from its folder. */
export async function rabbitNode(parts: {
  readonly plugins?: readonly string[];
  readonly config?: (folder: string) => Promise<readonly string[]>;
}): Promise<RabbitNode> {
  await ensurePrograms(["rabbitmq-server", "epmd"]);
  const folder = await mkdtemp(join(tmpdir(), "isthmus-rabbit-"));
  await chmod(folder, 0o711);
  const recipe = await rabbitmqRecipe(folder);
  const { plugins = [], config } = parts;
  await writeFile(join(folder, "plugins"), `[${plugins.join(",")}].\n`);
  const lines = (await config?.(folder)) ?? [];
  await appendFile(join(folder, "rabbitmq.conf"), lines.map((line) => `${line}\n`).join(""));
  const broker = new LocalBroker(recipe);
  await broker.start();
  const env = { ...process.env, ...recipe.steps[1]?.process.env };
  // Beside the server: the one in the PATH may be a wrapper that changes the user.
  const program = join(findProgram("rabbitmq-server"), "..", "rabbitmqctl");
  return {
    url: recipe.url,
    broker,
    async ctl(...args) {
      const node = env["RABBITMQ_NODENAME"] ?? "";
      const { stdout } = await run(program, ["--silent", "-n", node, ...args], { env });
      return stdout;
    },
    [Symbol.asyncDispose]: () => broker.stop(),
  };
}
