/** Qpid JMS, the JMS client of AMQP 1.0 that is not ours, from Maven Central. */
import { join } from "node:path";
import { cacheFolder, jars } from "./maven.ts";

const version = "2.7.0";
const jarsName = `qpid-jms-${version}`;

/** Where the jars are once they have been fetched. */
export function qpidJmsFolder(): string {
  return cacheFolder(jarsName);
}

/** The class path with the client, fetched when it is not there yet. */
export async function qpidJmsClassPath(): Promise<string> {
  const artifact = { group: "org.apache.qpid", name: "qpid-jms-client", version };
  return join(await jars(jarsName, [artifact]), "*");
}
