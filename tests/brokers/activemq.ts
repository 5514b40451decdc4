/**
 * ActiveMQ Classic for tests: AMQP 1.0 and MQTT on one port of the loopback, with its own way of
 * turning messages into those of JMS and back, as it is by default. Asks for no login, unless one
 * is given.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import { isAmqp1, saslHeader } from "./artemis.ts";
import type { Recipe } from "./local.ts";
import { type Artifact, distribution } from "./maven.ts";
import { findProgram } from "./programs.ts";

/** What is run. */
export const activemqArtifact: Artifact = {
  group: "org.apache.activemq",
  name: "apache-activemq",
  version: "5.18.3",
};

const javaFlags = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/** A user that may everything. */
export interface ActivemqLogin {
  readonly username: string;
  readonly password: string;
}

/** The broker, its files in the folder. */
export async function activemqRecipe(folder: string): Promise<Recipe> {
  const home = await distribution(activemqArtifact);
  const port = await freePort();
  const config = join(folder, "activemq.xml");
  await mkdir(join(folder, "data"));
  await writeFile(config, activemqXml(port, join(folder, "data")));
  const properties = { home, base: folder, conf: join(home, "conf"), data: join(folder, "data") };
  return {
    name: "ActiveMQ Classic",
    url: `amqp://127.0.0.1:${port}`,
    folder,
    endSignal: "SIGKILL",
    steps: [
      {
        process: {
          name: "ActiveMQ Classic",
          command: [
            findProgram("java"),
            ...javaFlags,
            ...Object.entries(properties).map(([name, value]) => `-Dactivemq.${name}=${value}`),
            "-jar",
            join(home, "bin", "activemq.jar"),
            "start",
            `xbean:file:${config}`,
          ],
          cwd: folder,
        },
        ready: { port, request: saslHeader, judge: isAmqp1 },
      },
    ],
  };
}

/** Asks for this login from the next start on. */
export async function askForLogin(folder: string, login: ActivemqLogin): Promise<void> {
  const config = join(folder, "activemq.xml");
  const { username, password } = login;
  const user = `<authenticationUser username="${username}" password="${password}" groups="all"/>`;
  const asking = `<plugins>
   <simpleAuthenticationPlugin><users>${user}</users></simpleAuthenticationPlugin>
  </plugins>
  <transportConnectors>`;
  const text = await readFile(config, "utf8");
  const before = /(<plugins>[^]*<\/plugins>\s*)?<transportConnectors>/;
  await writeFile(config, text.replace(before, asking));
}

function activemqXml(port: number, data: string): string {
  const protocols = "auto.protocols=amqp,mqtt";
  return `<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
    http://www.springframework.org/schema/beans/spring-beans.xsd
    http://activemq.apache.org/schema/core
    http://activemq.apache.org/schema/core/activemq-core.xsd">
 <broker xmlns="http://activemq.apache.org/schema/core" brokerName="tests" dataDirectory="${data}"
   useJmx="false" schedulePeriodForDestinationPurge="0">
  <persistenceAdapter>
   <kahaDB directory="${data}/kahadb" enableJournalDiskSyncs="false" journalMaxFileLength="4mb"/>
  </persistenceAdapter>
  <transportConnectors>
   <transportConnector name="all" uri="auto+nio://127.0.0.1:${port}?${protocols}"/>
  </transportConnectors>
 </broker>
</beans>
`;
}
