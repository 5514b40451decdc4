/**
 * Schemas of the OpenAPI document (JSON Schema 2020-12): what calls take and answer, as data.
 */

type Schema = Readonly<Record<string, unknown>>;

const TEXT: Schema = { type: "string" };
const TEXT_OR_NULL: Schema = { type: ["string", "null"] };
const COUNT: Schema = { type: "integer", minimum: 0 };
const CURSOR: Schema = { type: "string", description: "Opaque; the same string works everywhere" };

function object(properties: Readonly<Record<string, Schema>>, required: readonly string[]): Schema {
  return { type: "object", properties, required };
}

function list(items: Schema): Schema {
  return { type: "array", items };
}

function named(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

const OneReceipt = object(
  {
    id: TEXT,
    stream: TEXT,
    partition: COUNT,
    offset: COUNT,
    duplicate: { type: "boolean", description: "It had been appended before" },
    durable: { const: "fsync" },
  },
  ["id", "stream", "partition", "offset", "duplicate", "durable"],
);

const Gap = object(
  {
    partition: COUNT,
    from: COUNT,
    to: COUNT,
    reason: { enum: ["retention", "epoch", "corrupt", "source"] },
  },
  ["partition", "from", "to", "reason"],
);

const Message = object(
  {
    id: TEXT,
    stream: TEXT,
    partition: COUNT,
    offset: COUNT,
    key: TEXT_OR_NULL,
    keyBase64: TEXT,
    headers: {
      ...list({ type: "array", minItems: 2, maxItems: 2 }),
      description: 'Pairs of name and value: text, null, or {"base64":…}',
    },
    properties: { type: "object" },
    timestamp: { type: "integer", description: "The producer's time, Unix milliseconds" },
    appendedAt: { type: "integer", description: "Our time of the append; never goes back" },
    origin: { type: ["object", "null"] },
    body: { ...TEXT_OR_NULL, description: "UTF-8; null is a tombstone" },
    bodyBase64: TEXT,
    bodyJson: { description: "With as=json, where the body is JSON" },
  },
  ["id", "stream", "partition", "offset", "headers", "properties", "timestamp", "appendedAt"],
);

const Grant: Schema = {
  anyOf: [TEXT, object({ stream: TEXT, key: TEXT_OR_NULL, where: TEXT }, ["stream"])],
  description: "STREAM, STREAM:KEY, or members; `where` is CEL over the message and `claims`",
};

/** The schemas, by name. */
/** Which dead letters, and for a retry also how. */
const Pick = object(
  {
    place: { ...TEXT, description: "One of them: PARTITION/OFFSET" },
    all: { type: "boolean" },
    target: TEXT,
    where: { ...TEXT, description: "CEL over the dead letters" },
    reason: { ...TEXT, description: "Text that stands in the reason, in any case" },
    from: TEXT,
    to: TEXT,
    set: { type: "object", description: "A change to make first, as in a rule" },
    again: { type: "boolean", description: "Also those that were sent again or dropped" },
    rate: { ...TEXT, description: "Such as 100/s" },
    dryRun: { type: "boolean" },
  },
  [],
);

const Replay = object(
  {
    stream: { ...TEXT, description: "The rule's own when it is not there" },
    rule: TEXT,
    target: TEXT,
    from: TEXT,
    to: TEXT,
    where: TEXT,
    rate: TEXT,
    dryRun: { type: "boolean" },
  },
  ["rule", "from"],
);

export const SCHEMAS: Readonly<Record<string, Schema>> = {
  Pick,
  Replay,
  OneReceipt,
  Receipt: { anyOf: [named("OneReceipt"), list(named("OneReceipt"))] },
  Message,
  Gap,
  Page: object(
    {
      messages: list(named("Message")),
      next: CURSOR,
      atEnd: { type: "boolean" },
      gap: { anyOf: [named("Gap"), { type: "null" }] },
      gaps: { ...list(named("Gap")), description: "All of them, when there are several" },
    },
    ["messages", "next", "atEnd", "gap"],
  ),
  StoredReceipt: object(
    {
      id: TEXT,
      stream: TEXT,
      partition: COUNT,
      offset: COUNT,
      durable: { const: "fsync" },
      appendedAt: { type: "integer" },
      digest: { type: "string", description: "sha256: and hex, over key, headers and body" },
    },
    ["id", "stream", "partition", "offset", "durable", "appendedAt", "digest"],
  ),
  List: object({ items: list({ type: "object" }), next: TEXT_OR_NULL }, ["items", "next"]),
  Definition: object(
    {
      name: TEXT,
      revision: COUNT,
      project: { type: ["string", "null"] },
      document: { type: "object" },
      status: { type: "object" },
    },
    ["name", "revision", "document", "status"],
  ),
  Definitions: {
    type: "object",
    properties: {
      project: TEXT,
      bridges: { type: "object" },
      streams: { type: "object" },
      sources: { type: "object" },
      hooks: { type: "object" },
      rules: { type: "object" },
      access: { type: "object" },
    },
    additionalProperties: false,
  },
  Applied: object(
    {
      version: COUNT,
      dryRun: { type: "boolean" },
      results: list(
        object(
          {
            kind: TEXT,
            name: TEXT,
            revision: COUNT,
            outcome: { enum: ["created", "changed", "same", "deleted"] },
          },
          ["kind", "name", "revision", "outcome"],
        ),
      ),
      warnings: list(TEXT),
    },
    ["version", "dryRun", "results", "warnings"],
  ),
  NewToken: object(
    {
      name: TEXT,
      role: { enum: ["admin", "operator", "viewer"] },
      subject: TEXT,
      read: list(Grant),
      write: list(Grant),
      expires: { type: "string", description: "A duration from now", examples: ["90d"] },
    },
    [],
  ),
  Token: object(
    {
      name: TEXT,
      revision: COUNT,
      document: { type: "object" },
      status: { type: "object" },
      token: { type: "string", description: "Shown this once and stored nowhere" },
    },
    ["name", "token"],
  ),
  Ticket: object(
    {
      ticket: { type: "string", description: "For `?ticket=` or the subprotocol `ticket.TICKET`" },
      expiresAt: COUNT,
    },
    ["ticket", "expiresAt"],
  ),
  Verification: object(
    {
      valid: { type: "boolean" },
      hook: TEXT,
      scheme: TEXT,
      keyId: TEXT,
      verifiedWith: { type: "string", description: "The key it was taken in with" },
      code: TEXT,
      detail: { type: "string", description: "Why it does not hold, or can't be checked" },
    },
    ["valid"],
  ),
  Health: object(
    {
      status: { enum: ["live", "ready", "not-ready"] },
      reasons: list(object({ code: TEXT, detail: TEXT }, ["code", "detail"])),
    },
    ["status"],
  ),
  Problem: object(
    {
      type: TEXT,
      title: TEXT,
      status: { type: "integer" },
      detail: TEXT,
      instance: TEXT,
      code: { type: "string", description: "Stable: what programs react to" },
      errors: list(
        object(
          { pointer: TEXT, detail: TEXT, line: { type: "integer" }, column: { type: "integer" } },
          ["pointer", "detail"],
        ),
      ),
    },
    ["type", "title", "status", "detail", "code"],
  ),
};
