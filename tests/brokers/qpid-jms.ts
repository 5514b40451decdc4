/** Qpid JMS, the JMS client of AMQP 1.0 that is not ours, from Maven Central. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, jars } from "./maven.ts";
import type { ProgramName } from "./programs.ts";

const version = "2.7.0";
const jarsName = `qpid-jms-${version}`;

/** What a program that is given as source and uses the client needs, to fetch it included. */
export function qpidJmsPrograms(): readonly ProgramName[] {
  return ["java", "javac", ...(existsSync(cacheFolder(jarsName)) ? [] : (["mvn"] as const))];
}

/** The class path with the client, fetched when it is not there yet. */
export async function qpidJmsClassPath(): Promise<string> {
  const artifact = { group: "org.apache.qpid", name: "qpid-jms-client", version };
  return join(await jars(jarsName, [artifact]), "*");
}
