/** The page `docs/mapping.md`, printed from the mapping table. */
import { mapping } from "../../bridges/mapping.ts";
import type { MappingRow } from "../../src/bridge.ts";
import { explainMapping } from "../../src/cli/map-explain.ts";

const TITLES = {
  kafka: "Kafka",
  amqp: "AMQP 0-9-1 (RabbitMQ)",
  amqp1: "AMQP 1.0 (Artemis, ActiveMQ, RabbitMQ)",
  mqtt: "MQTT 5",
  "mqtt 3.1.1": "MQTT 3.1.1",
  http: "HTTP targets",
} as const satisfies Record<keyof typeof mapping, string>;

const HEAD = `# How messages change between protocols

This page is printed from the table that the codecs run (\`bridges/mapping.ts\`); a test holds them
equal. \`isthmus map explain FROM TO\` says it for two kinds or two of your bridges.

* A field that a protocol has no place for travels in a **header of ours**, \`isthmus-…\`
  (\`isthmus_…\` for Kafka's properties). A gateway that reads the message takes it out of the
  headers again; other programs see it as a header.
* Where a place holds a field only in part (seconds, unique names, text), the header under *whole
  in* keeps the rest, so that a message that goes from one bridge through another and back is what
  it was: its fields and the bytes on the first protocol's wire. A test walks every ordered pair of
  bridges, every row, and random messages.
* A message's own header by a name of ours travels as \`isthmus-header-NAME\`, or as \`NAME#2\` in
  AMQP, so nobody's header is taken for ours.
* What a protocol can't hold and no header can carry is **lost**, and told: counted by route and
  field (\`losses\` in \`GET /api/routes\`, \`isthmus_route_losses_total\` in \`/metrics\`) and shown by
  \`isthmus rule preview\`. With \`translation: strict\` on a rule or a target such a message is not
  sent: it is refused, and goes where the rule's \`onFailure\` says, to the dead letters by default.
  The id and the time are the gateway's as much as the producer's: where a protocol has no place for
  them the table says so, and no message is counted as losing them.
* What a protocol refuses (an AMQP content type of more than 255 bytes, a header with a line break
  for HTTP, a field table of more than 64 KiB) is a refusal of that message, never a silent change;
  the preview tells it beforehand.
* Times are Unix milliseconds inside. An expiry is absolute: what a protocol counts from now is
  counted down on each hop.
* \`durable\` absent means durable. QoS, the retain flag, exchanges and topics are the target's; a
  message's redelivery flag is noted in its origin and not passed on.
* MQTT's client library groups the user properties that it reads by name: what another program sent
  as a, b, a comes as a, a, b. What a gateway sent keeps its order.
* Whole numbers in AMQP 0-9-1 field tables keep their value, not their width: the client library
  chooses it, and knows no more than 53 bits.
`;

/** The whole page. */
export function mappingPage(): string {
  const tables = Object.entries(TITLES).map(([protocol, title]) => {
    const rows = mapping[protocol as keyof typeof mapping];
    return `## ${title}\n\n${protocolTable(rows)}`;
  });
  return `${HEAD}\n${tables.join("\n")}\n${lossTable()}`;
}

function protocolTable(rows: readonly MappingRow[]): string {
  const lines = rows.map(({ field, by, place, form, spare, note }) => {
    const where = by === "header" ? code(place) : place;
    const cells = [code(field), where, form, spare === undefined ? "" : code(spare), note ?? ""];
    return line(by === "none" ? [code(field), "lost", "", "", note ?? ""] : cells);
  });
  return [line(["field", "place", "form", "whole in", "note"]), RULE(5), ...lines, ""].join("\n");
}

/** For each ordered pair, what is lost. */
function lossTable(): string {
  const names = Object.keys(TITLES) as (keyof typeof mapping)[];
  const sources = names.filter((name) => name !== "http");
  const cell = (from: keyof typeof mapping, to: keyof typeof mapping): string => {
    const lost = explainMapping(mapping[from], mapping[to]).filter(({ fate }) => fate === "lost");
    const fields = lost.map(({ field }) => field).filter((field) => !UNCOUNTED.has(field));
    if (fields.length > 3) return "all but address and body";
    return fields.length === 0 ? "–" : fields.map(code).join(", ");
  };
  const lines = sources.map((from) => line([from, ...names.map((to) => cell(from, to))]));
  const head = `## What is lost\n\nFrom the left to the top, beside the id and the time. HTTP also \
loses headers of the\nconnection, credentials, and that a header has no value.\n`;
  return [head, line(["", ...names]), RULE(names.length + 1), ...lines, ""].join("\n");
}

const UNCOUNTED: ReadonlySet<string> = new Set(["id", "timestampMs"]);
const RULE = (columns: number): string => `|${"---|".repeat(columns)}`;

function line(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function code(text: string): string {
  return `\`${text}\``;
}
