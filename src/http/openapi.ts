/**
 * The OpenAPI 3.1 document, made from the table of calls. Data only: nothing here answers a call.
 */
import type { AnswerName, BodyName, Endpoint } from "./endpoints.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { SCHEMAS } from "./openapi-schemas.ts";

type Json = Readonly<Record<string, unknown>>;

const QUERY: Readonly<Record<string, readonly [string, Json]>> = {
  partition: ["Only this partition", { type: "integer", minimum: 0 }],
  from: [
    "earliest, latest, an offset, an RFC 3339 time, 1h ago, or a cursor",
    { type: "string", examples: ["earliest", "1h ago"] },
  ],
  to: ["Where to end, as in from; not included", { type: "string" }],
  max: ["At most so many", { type: "integer", minimum: 1, maximum: 10_000 }],
  wait: ["How long to wait for the first message", { type: "string", examples: ["30s"] }],
  where: ["Only messages for which this CEL expression is true", { type: "string" }],
  as: ["Show bodies that are JSON as JSON", { type: "string", enum: ["json"] }],
  key: ["Only messages of this key", { type: "string" }],
  after: ["Go on after this name", { type: "string" }],
  dryRun: [
    "Answer what would happen, and do nothing",
    { type: "string", enum: ["1", "0", "true", "false"] },
  ],
  why: ["Why the change is made, for the record", { type: "string" }],
  preview: [
    "With dryRun: run changed rules over what the last hour or so brought",
    { type: "string", examples: ["1h"] },
  ],
  last: ["From so long ago", { type: "string", examples: ["1h"] }],
  limit: ["At most so many messages", { type: "integer", minimum: 1 }],
  against: ["The revision to compare with", { type: "integer", minimum: 1 }],
  rule: ["Only this rule", { type: "string" }],
  prune: [
    "Delete what the file's project made before and no longer names",
    { type: "string", enum: ["1", "0", "true", "false"] },
  ],
};

const HEADERS: Readonly<Record<string, string>> = {
  "Isthmus-Key": "The message's key; headers of the message are Isthmus-Header-NAME",
  "Idempotency-Key": "The same key again gets the first receipt, with duplicate true",
  "If-Match": "Only when this is the state: a revision, or the partition's end",
  "If-None-Match": "*: only when there is none yet",
  "WebHook-Request-Origin": "Who asks; allowed in WebHook-Allowed-Origin",
  "WebHook-Request-Rate": "How many a minute it wants; WebHook-Allowed-Rate says how many it may",
  "Last-Event-ID": "The cursor to go on from",
};

const MEDIA: Readonly<Record<BodyName, readonly string[]>> = {
  Bytes: ["*/*"],
  Messages: [
    "*/*",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
  ],
  Document: ["application/json", "application/yaml"],
  Definitions: ["application/json", "application/yaml"],
  NewToken: ["application/json"],
  Rollback: ["application/json"],
  Pick: ["application/json"],
  Replay: ["application/json"],
};

const BODY_SCHEMAS: Readonly<Record<BodyName, Json>> = {
  Bytes: {},
  Messages: {},
  Document: { type: "object" },
  Definitions: reference("Definitions"),
  NewToken: reference("NewToken"),
  Rollback: {
    type: "object",
    properties: { to: { type: ["integer", "null"] }, why: { type: ["string", "null"] } },
    additionalProperties: false,
  },
  Pick: reference("Pick"),
  Replay: reference("Replay"),
};

const ANSWERS: Readonly<Record<AnswerName, readonly [string, string | null]>> = {
  Receipt: ["On disk; a list of receipts for NDJSON and batches", "application/json"],
  Page: ["Messages, and the cursor to go on from", "application/json"],
  Events: ["Events: message, gap", "text/event-stream"],
  StoredReceipt: ["It is on disk", "application/json"],
  List: ["A page of items", "application/json"],
  Definition: ["The definition and how it stands", "application/json"],
  Applied: ["What became of each definition", "application/json"],
  Revision: ["The revision, its document and its difference", "application/json"],
  Preview: ["Lines: progress, and the result as the last one", "application/x-ndjson"],
  BridgeTest: ["What was looked at, and what is wrong with it", "application/json"],
  Explanations: ["What each rule makes of the message", "application/json"],
  Journeys: ["How the message was received, and what became of it", "application/json"],
  Operated: ["What was done, or would be", "application/json"],
  DeadLetter: ["The dead letter and the message as it was", "application/json"],
  Survey: ["What the job would do", "application/json"],
  Job: ["The job and how far it has come", "application/json"],
  Ticket: ["The ticket, good for one use", "application/json"],
  Token: ["The token, shown this once", "application/json"],
  Verification: ["Whether the signature holds, with which key", "application/json"],
  Health: ["How it stands", "application/json"],
  Text: ["Text", "text/plain"],
  Html: ["A page", "text/html"],
  OpenApi: ["The document", "application/json"],
  Socket: ["The connection is a WebSocket", null],
  Nothing: ["Done", null],
};

const PROBLEMS: Readonly<Record<number, string>> = {
  400: "The request is not valid",
  401: "No token or signature, or one that is not valid",
  403: "The token does not allow it",
  404: "There is no such thing",
  405: "Another method than is taken",
  408: "The body came too slowly",
  409: "Still in use",
  412: "Another state than the condition says",
  413: "Too large",
  415: "A type or coding that is not taken",
  416: "The offset is past the end",
  422: "The definition is not valid, or the idempotency key was used with another body",
  426: "This is a WebSocket",
  429: "Too much at once",
  431: "The headers are too large",
  503: "The log or the database can't be used now",
};

/** The document. `url` is the gateway's own, where it is known. */
export function openApiDocument(version: string, url: string | null): Json {
  return {
    openapi: "3.1.0",
    jsonSchemaDialect: "https://json-schema.org/draft/2020-12/schema",
    info: {
      title: "Isthmus",
      summary: "A gateway between a durable log, HTTP, WebSocket, Kafka, AMQP and MQTT",
      version,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: url ?? "/" }],
    security: [{ bearer: [] }],
    paths: pathsOf(ENDPOINTS),
    components: {
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
      schemas: SCHEMAS,
    },
  };
}

/** A path as OpenAPI writes it: `{name}` for `:name`. */
export function openApiPath(path: string): string {
  return path.replaceAll(/:([A-Za-z]+)/g, "{$1}");
}

function pathsOf(endpoints: readonly Endpoint[]): Json {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const endpoint of endpoints) {
    const path = openApiPath(endpoint.path);
    const operations = (paths[path] ??= {});
    operations[endpoint.method.toLowerCase()] = operationOf(endpoint);
  }
  return paths;
}

function operationOf(endpoint: Endpoint): Json {
  const { access, summary, body } = endpoint;
  const needs = access === "open" || access === "token" ? "" : ` Needs the role ${access}.`;
  return {
    operationId: operationId(endpoint),
    summary,
    description: `${summary}.${needs}`,
    ...(access === "open" ? { security: [] } : {}),
    parameters: parametersOf(endpoint),
    ...(body === undefined ? {} : { requestBody: requestBody(body) }),
    responses: responsesOf(endpoint),
  };
}

function operationId({ method, path }: Endpoint): string {
  const words = path.split(/[/:.-]+/).filter((word) => word !== "");
  const capital = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1));
  return method.toLowerCase() + (capital.length === 0 ? "Root" : capital.join(""));
}

function parametersOf({ path, query = [], headers = [] }: Endpoint): readonly Json[] {
  const inPath = [...path.matchAll(/:([A-Za-z]+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  const inQuery = query.map((name) => {
    const [description, schema] = QUERY[name] ?? ["", { type: "string" }];
    return { name, in: "query", description, schema };
  });
  const inHeader = headers.map((name) => {
    return { name, in: "header", description: HEADERS[name] ?? "", schema: { type: "string" } };
  });
  return [...inPath, ...inQuery, ...inHeader];
}

function requestBody(name: BodyName): Json {
  const schema = BODY_SCHEMAS[name];
  const content = Object.fromEntries(MEDIA[name].map((type) => [type, { schema }]));
  return { required: name !== "Bytes" && name !== "Messages", content };
}

function responsesOf({ access, answers, problems = [] }: Endpoint): Json {
  const responses: Record<string, Json> = {};
  for (const [status, name] of Object.entries(answers)) responses[status] = answerOf(name);
  const refused = access === "open" ? [] : [401, 403];
  for (const status of [...refused, ...problems]) {
    responses[status] ??= {
      description: PROBLEMS[status] ?? "A problem",
      content: { "application/problem+json": { schema: reference("Problem") } },
    };
  }
  return responses;
}

function answerOf(name: AnswerName): Json {
  const [description, type] = ANSWERS[name];
  if (type === null) return { description };
  const isNamed = Object.hasOwn(SCHEMAS, name);
  return { description, content: { [type]: isNamed ? { schema: reference(name) } : {} } };
}

function reference(name: string): Json {
  return { $ref: `#/components/schemas/${name}` };
}
