/** A webhook target to send to in tests: its document, a sink and messages. */
import { http } from "../../../bridges/http/module.ts";
import type { Bridge, Outcome, Sink } from "../../../src/bridge.ts";
import { encodeText, type Message } from "../../../src/message.ts";

const never = new AbortController().signal;

/** Opens a target on this machine; `secrets` are what `${env:NAME}` stands for. */
export async function openTarget(
  document: Record<string, unknown>,
  secrets: Readonly<Record<string, string>> = {},
): Promise<Bridge> {
  const config = http.parseConfig({ allowPrivate: ["127.0.0.0/8"], ...document });
  const resolve = (text: string): Promise<string> =>
    Promise.resolve(text.replaceAll(/\$\{env:(\w+)\}/g, (_, name: string) => secrets[name] ?? ""));
  return await http.connect(config, { name: "crm", resolve, signal: never });
}

export function messageOf(parts: Partial<Message> = {}): Message {
  const body = encodeText('{"a":1}');
  const rest = { key: null, properties: {}, headers: [], timestampMs: 0, origin: null };
  return { id: crypto.randomUUID(), body, ...rest, ...parts };
}

/** Sends one message; its outcome. */
export async function sendOne(
  sink: Sink,
  message: Message = messageOf(),
  fields: Record<string, unknown> = {},
): Promise<Outcome> {
  const [outcome] = await sink.send([{ message, fields }], never);
  if (outcome === undefined) throw new Error("a sink answers for each message");
  return outcome;
}
