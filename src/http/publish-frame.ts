/**
 * A publish over the socket: appended at once, so that frames keep their order in the log, and
 * answered once the disk has it.
 */
import type { Message } from "../message.ts";
import type { Principal } from "../rules/store/roles.ts";
import { settledReceipt, whenDurable, writableStream } from "./append.ts";
import { admitWrite } from "./auth.ts";
import type { PublishFrame } from "./frames.ts";
import { dedupeKeyOf, publishOrigin } from "./publish.ts";
import type { HttpServices } from "./services.ts";

/**
 * Appends; the promise is of the `published` frame. With an `id` that its caller has used before
 * it is the first one's place. @throws InvalidError, ForbiddenError, LimitError, StorageError: at
 * once, nothing was appended. Rejects with StorageError or ConflictError.
 */
export function publishFrame(
  frame: PublishFrame,
  principal: Principal,
  services: HttpServices,
): Promise<string> {
  const { id, ref } = frame;
  const stream = writableStream(services, frame.stream);
  const message = admitWrite<Message>(principal, stream.name, {
    ...frame.message,
    id: id ?? services.ids(),
    timestampMs: services.clock.nowMs(),
    origin: publishOrigin("socket", stream.name, principal),
  });
  const dedupeKey = id === null ? null : dedupeKeyOf(principal, id);
  const { durable, receipt } = stream.appendOne(message, { dedupeKey });
  const answer = async (): Promise<string> => {
    await whenDurable(durable, services);
    const { partition, offset, duplicate } = await settledReceipt(stream, receipt, message);
    services.telemetry.intake("socket").accepted++;
    return `{"op":"published","ref":${JSON.stringify(ref)},"partition":${partition},"offset":${offset},"duplicate":${duplicate}}`;
  };
  return answer();
}
