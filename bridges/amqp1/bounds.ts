/**
 * What AMQP 1.0 can't hold of a message's properties. By itself, without the client library, so
 * that a preview can ask before any bridge is connected.
 */
import type { Properties } from "../../src/message.ts";

/** Why properties can't be sent, naming the first one that is wrong; null: they can. */
export function propertyProblem({
  contentType,
  contentEncoding,
  priority,
}: Properties): string | null {
  for (const [name, text] of Object.entries({ contentType, contentEncoding })) {
    if (text === undefined || /^[\0-\x7f]*$/.test(text)) continue;
    return `the property ${name} holds more than ASCII, which AMQP 1.0 can't carry`;
  }
  if (priority === undefined) return null;
  if (Number.isInteger(priority) && priority >= 0 && priority <= 255) return null;
  return `the property priority is ${priority}; AMQP takes whole numbers from 0 to 255`;
}
