/**
 * Artemis for tests: AMQP 1.0 and MQTT on one port, nothing asked of a login. Addresses are made at
 * the first use, save those below `strict.`; those below `full.` hold two messages and reject more.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import type { Recipe } from "./local.ts";
import { type Artifact, distribution } from "./maven.ts";
import { runToEnd } from "./process.ts";
import { findProgram } from "./programs.ts";

/** What is run. */
export const artemisArtifact: Artifact = {
  group: "org.apache.activemq",
  name: "apache-artemis",
  version: "2.40.0",
};

const javaFlags = "-Xms128M -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto";
/** SASL's protocol header; a broker of AMQP 1.0 answers with the same. */
export const saslHeader = Buffer.from("AMQP\x03\x01\0\0", "latin1");

/** The broker, its files in the folder. */
export async function artemisRecipe(folder: string): Promise<Recipe> {
  const home = await distribution(artemisArtifact);
  const port = await freePort();
  const instance = join(folder, "instance");
  // It finds Java by itself where `java` is in PATH.
  findProgram("java");
  await runToEnd({
    name: "Artemis's create",
    command: [
      join(home, "bin", "artemis"),
      "create",
      instance,
      "--silent",
      "--user=admin",
      "--password=admin",
      "--allow-anonymous",
      "--host=127.0.0.1",
      "--no-web",
      "--no-autotune",
      "--nio",
    ],
    cwd: folder,
    env: { JAVA_ARGS: "-Xmx128M -XX:TieredStopAtLevel=1" },
  });
  await mkdir(join(folder, "data"));
  await writeFile(join(instance, "etc", "broker.xml"), brokerXml(port, join(folder, "data")));
  return {
    name: "Artemis",
    url: `amqp://127.0.0.1:${port}`,
    folder,
    endSignal: "SIGKILL",
    steps: [
      {
        process: {
          name: "Artemis",
          command: [join(instance, "bin", "artemis"), "run"],
          cwd: folder,
          env: { JAVA_ARGS: javaFlags },
        },
        ready: { port, request: saslHeader, judge: isAmqp1 },
      },
    ],
  };
}

/** Knows just this user from the next start on, who may everything. */
export async function askForLogin(
  folder: string,
  { username, password }: { readonly username: string; readonly password: string },
): Promise<void> {
  const etc = join(folder, "instance", "etc");
  const files = ["user", "role"].map(
    (what) => `org.apache.activemq.jaas.properties.${what}="artemis-${what}s.properties"`,
  );
  const module = "org.apache.activemq.artemis.spi.core.security.jaas.PropertiesLoginModule";
  const login = `activemq {\n  ${module} required\n    ${files.join("\n    ")};\n};\n`;
  await writeFile(join(etc, "login.config"), login);
  await writeFile(join(etc, "artemis-users.properties"), `${username} = ${password}\n`);
  await writeFile(join(etc, "artemis-roles.properties"), `amq = ${username}\n`);
}

/** Whether an answer begins as AMQP 1.0's does. */
export function isAmqp1(answer: Buffer): boolean | null {
  return answer.length < saslHeader.length ? null : answer[5] === 1 && answer[6] === 0;
}

function brokerXml(port: number, data: string): string {
  const folder = (name: string): string => `<${name}-directory>${data}/${name}</${name}-directory>`;
  const roles = ["Address", "DurableQueue", "NonDurableQueue"]
    .flatMap((what) => [`create${what}`, `delete${what}`])
    .concat("consume", "browse", "send", "manage")
    .map((type) => `<permission type="${type}" roles="amq"/>`)
    .join("");
  const settings = (match: string, more: string): string =>
    `<address-setting match="${match}">
       <dead-letter-address>DLQ</dead-letter-address>
       <max-delivery-attempts>100</max-delivery-attempts>
       <auto-delete-queues>false</auto-delete-queues>
       <auto-delete-addresses>false</auto-delete-addresses>${more}
     </address-setting>`;
  const none =
    "<auto-create-queues>false</auto-create-queues>" +
    "<auto-create-addresses>false</auto-create-addresses>";
  const full =
    "<max-size-messages>2</max-size-messages><address-full-policy>FAIL</address-full-policy>";
  return `<?xml version="1.0"?>
<configuration xmlns="urn:activemq">
 <core xmlns="urn:activemq:core">
  <name>tests</name>
  <persistence-enabled>true</persistence-enabled>
  <journal-type>NIO</journal-type>
  ${["paging", "bindings", "journal", "large-messages"].map(folder).join("\n  ")}
  <journal-datasync>false</journal-datasync>
  <journal-min-files>2</journal-min-files>
  <journal-file-size>1M</journal-file-size>
  <max-disk-usage>99</max-disk-usage>
  <acceptors>
   <acceptor name="all">tcp://127.0.0.1:${port}?protocols=CORE,AMQP,MQTT</acceptor>
  </acceptors>
  <security-settings><security-setting match="#">${roles}</security-setting></security-settings>
  <address-settings>
   ${[settings("#", ""), settings("strict.#", none), settings("full.#", full)].join("\n   ")}
  </address-settings>
  <addresses><address name="DLQ"><anycast><queue name="DLQ"/></anycast></address></addresses>
 </core>
</configuration>
`;
}
