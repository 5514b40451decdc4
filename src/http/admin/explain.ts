/**
 * `GET /api/explanations/:stream/:partition/:offset`: for each rule of the stream, whether it takes
 * this message as the rule stands today, what in its condition decided, and what its targets get.
 */
import { InvalidError, NotFoundError } from "../../errors.ts";
import { explanationsMax } from "../../rules/limits.ts";
import { decodeText } from "../../message.ts";
import { planOf } from "../../routing/plan.ts";
import { explainRule } from "../../rules/explain.ts";
import { bridgesOf, Rehearsal } from "../../rules/rehearsal.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { readableStream, storedAt } from "../append.ts";
import { requireRead } from "../auth.ts";
import type { ReceiptPath } from "../receipts.ts";
import { Query } from "../request.ts";
import type { HttpServices } from "../services.ts";
import { jsonResponse } from "./definitions.ts";

const WHOLE = /^\d{1,15}$/;

/**
 * The explanations, by the rules' names; `?rule=` asks for one.
 * @throws NotFoundError no message, or no such rule of the stream.
 */
export async function explainResponse(
  call: { readonly path: ReceiptPath; readonly url: string; readonly principal: Principal },
  services: HttpServices,
): Promise<Response> {
  const { path, principal } = call;
  const wanted = new Query(call.url, ["rule"]).text("rule");
  if (!WHOLE.test(path.partition) || !WHOLE.test(path.offset)) {
    throw new InvalidError("a message is STREAM/PARTITION/OFFSET, both whole numbers");
  }
  const stream = readableStream(services, path.stream);
  const place = { partition: Number(path.partition), offset: Number(path.offset) };
  const message = await storedAt(stream, place);
  const name = `${path.stream}/${path.partition}/${path.offset}`;
  if (message === null) throw new NotFoundError(`there is no message at ${name}`);
  requireRead(principal, path.stream, message.key === null ? null : decodeText(message.key));
  const { gateway } = services;
  const definitions = gateway.definitions();
  const bridges = bridgesOf(definitions, gateway.modules);
  const rules = planOf(definitions)
    .rules.filter((rule) => rule.stream === path.stream)
    .filter((rule) => wanted === null || rule.name === wanted)
    .toSorted((left, right) => (left.name < right.name ? -1 : 1));
  if (wanted !== null && rules.length === 0) {
    throw new NotFoundError(`there is no rule ${wanted.slice(0, 120)} that reads ${path.stream}`);
  }
  const items = rules.slice(0, explanationsMax).map(({ name: rule, definition }) => {
    return explainRule(definition, new Rehearsal(rule, definition.parsed, bridges), message);
  });
  return jsonResponse({ ...place, stream: path.stream, id: message.id, items });
}
