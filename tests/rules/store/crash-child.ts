/**
 * A process that makes one change and dies by SIGKILL around its snapshot:
 * `bun crash-child.ts DATA-FOLDER before|after STREAM [DATABASE-URL]`.
 */
import { filesWith, opened } from "./opened.ts";

const [dataFolder = "", moment = "", name = "", databaseUrl] = process.argv.slice(2);
let isArmed = false;
const die = (): void => {
  if (isArmed) process.kill(process.pid, "SIGKILL");
};
const files = filesWith(moment === "before" ? { before: die } : { after: die });
const { store } = await opened(
  dataFolder,
  databaseUrl === undefined ? { files } : { files, databaseUrl },
);
isArmed = true;
await store.change([{ kind: "streams", name, document: {} }], { by: "child" });
throw new Error("the change was answered, and nothing died");
