/**
 * `isthmus serve`: starts the gateway, says where it is and how to try it, and stops it cleanly on
 * SIGTERM and Ctrl-C. A second signal ends it at once; a failed sync ends it with code 70.
 */
import { join, relative } from "node:path";
import { type Config, readConfig, type SettingName } from "../config.ts";
import { CorruptionError, errorText, StorageError } from "../errors.ts";
import { EXIT_STORAGE, type RunningGateway, startGateway } from "../main.ts";
import { EXIT_DONE, EXIT_FAILED } from "./failure.ts";
import { write } from "./output.ts";

/** Runs until it is told to stop; the exit code. @throws GatewayError it could not start. */
export async function serve(flags: Partial<Record<SettingName, string>>): Promise<number> {
  const config = await readConfig({ flags });
  let gateway: RunningGateway;
  try {
    gateway = await startGateway(config);
  } catch (error) {
    if (!(error instanceof StorageError) && !(error instanceof CorruptionError)) throw error;
    await write(process.stderr, `isthmus: ${errorText(error)}\n`);
    return EXIT_STORAGE;
  }
  const signalled = nextSignal();
  await write(process.stdout, welcome(config, gateway));
  const ended = await Promise.race([signalled, gateway.failed]);
  if (ended instanceof StorageError) {
    // Nothing that was not synced may be acked by a tidy end: the process is over.
    await write(process.stderr, `isthmus: ${ended.message}; ending, nothing unsynced was acked\n`);
    process.exit(EXIT_STORAGE);
  }
  await write(process.stderr, `isthmus: ${ended}, stopping\n`);
  const again = nextSignal().then(() => "again" as const);
  const stopped = await Promise.race([gateway.stop().then(() => "stopped" as const), again]);
  if (stopped === "again") process.exit(EXIT_FAILED);
  return EXIT_DONE;
}

function nextSignal(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve(name));
  return promise;
}

function welcome(config: Config, gateway: RunningGateway): string {
  const file = join(config.dataFolder, "admin-token");
  const short = relative(process.cwd(), file);
  const path = short.startsWith("..") ? file : short;
  const token = config.adminToken === null ? `$(cat ${path})` : "$ISTHMUS_ADMIN_TOKEN";
  const where = config.adminToken === null ? `in ${path}` : "the one in ISTHMUS_ADMIN_TOKEN";
  return `
  Isthmus is ready at ${gateway.url}

  Admin token: ${where}
  Try it:

    curl -X POST ${gateway.url}/streams/hello/messages -H "Authorization: Bearer ${token}" -d 'hello'

`;
}
