/**
 * The parser of a hook's document: where its webhooks go, how their senders are verified, what they
 * are answered and how many may come. Secrets are looked at only as texts: they may be references.
 */
import { z } from "zod";
import {
  bodyBytesMax,
  hookBodyBytesPerSecond,
  hookConcurrencyMax,
  hookListMax,
  hookRateMax,
} from "../limits.ts";
import type { HookDocument, HookLimits, JsonObject } from "./document.ts";
import { checkEarly } from "./kinds.ts";
import { isObject, type ParseContext } from "./place.ts";
import type { Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { parseRate, RATE_FORM } from "./units.ts";
import { parseVerify } from "./verify.ts";

/** Methods by which a webhook can come; the rest are probes, handshakes or mistakes. */
const METHODS = ["POST", "PUT", "PATCH", "GET", "DELETE"] as const;
/** The characters that a header's value may have, for a content type. */
const CONTENT_TYPE = /^[\x20-\x7e]{1,200}$/;
/** A body that is answered; longer ones belong to a program. Characters. */
const answerCharsMax = 16_384;

/** `application/json`, or `text/*` for all of a type. */
const MEDIA_TYPE = /^[A-Za-z0-9!#$&^_.+-]{1,100}\/(\*|[A-Za-z0-9!#$&^_.+-]{1,100})$/;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/;

const rate = z.unknown().transform((value, context) => {
  const found = parseRate(value, hookRateMax);
  if (found !== null) return found;
  context.addIssue({ code: "custom", message: `expected ${RATE_FORM}` });
  return z.NEVER;
});

const hookShape = shapes.strict({
  stream: shapes.name,
  key: shapes.expression.optional(),
  dedupe: z.union([z.literal(false), shapes.expression]).optional(),
  verify: z.record(z.string(), z.unknown()).optional(),
  answer: shapes
    .strict({
      status: z.int().min(200).max(299).optional(),
      body: z.string().max(answerCharsMax).optional(),
      contentType: z.string().regex(CONTENT_TYPE, "expected a media type").optional(),
    })
    .optional(),
  limits: shapes
    .strict({
      body: shapes.byteCount.optional(),
      rate: rate.optional(),
      concurrency: z.int().min(1).max(hookConcurrencyMax).optional(),
      headers: shapes.byteCount.optional(),
      bytesPerSecond: shapes.byteCount.optional(),
    })
    .optional(),
  methods: z.array(shapes.word(METHODS)).min(1).optional(),
  accept: z
    .array(z.string().regex(MEDIA_TYPE, "expected a media type such as application/json or text/*"))
    .min(1)
    .max(hookListMax)
    .optional(),
  inflate: z.boolean().optional(),
  dropHeaders: z
    .array(z.string().regex(HEADER_NAME, "expected the name of a header"))
    .max(hookListMax)
    .optional(),
});

/** Parses the document of a hook. */
export function parseHook(
  document: JsonObject,
  _context: ParseContext,
  problems: Problems,
): HookDocument | null {
  const shape = hookShape.safeParse(document);
  if (!shape.success) problems.addIssues(document, shape.error.issues);
  const { key, dedupe, verify } = document;
  checkEarly("/key", key, problems);
  checkEarly("/dedupe", dedupe, problems);
  const verified = isObject(verify) ? parseVerify(verify, problems) : NOT_VERIFIED;
  if (!shape.success || verified === null) return null;
  const { data } = shape;
  return {
    stream: data.stream,
    key: data.key ?? null,
    dedupe: data.dedupe ?? null,
    ...verified,
    answer: answerOf(data.answer, problems),
    limits: limitsOf(data.limits, problems),
    methods: [...new Set(data.methods ?? ["POST"])],
    accept: data.accept?.map((type) => type.toLowerCase()) ?? null,
    inflate: data.inflate ?? false,
    dropHeaders: data.dropHeaders?.map((name) => name.toLowerCase()) ?? [],
  };
}

const NOT_VERIFIED: Pick<HookDocument, "verify" | "challenge" | "echo"> = {
  verify: null,
  challenge: null,
  echo: null,
};

type Data = z.infer<typeof hookShape>;

function answerOf(answer: Data["answer"], problems: Problems): HookDocument["answer"] {
  if (answer === undefined) return null;
  const { status = 200, body = "", contentType = null } = answer;
  if (body !== "" && (status === 204 || status === 205)) {
    problems.add("/answer/body", `an answer of ${status} has no body`);
  }
  return { status, body, contentType };
}

function limitsOf(limits: Data["limits"], problems: Problems): HookLimits {
  const bodyBytes = limits?.body ?? bodyBytesMax;
  if (bodyBytes > bodyBytesMax) {
    problems.add("/limits/body", `expected at most ${bodyBytesMax} bytes`);
  }
  return {
    bodyBytes,
    rate: limits?.rate ?? null,
    concurrency: limits?.concurrency ?? null,
    headerBytes: limits?.headers ?? null,
    bytesPerSecond: limits?.bytesPerSecond ?? hookBodyBytesPerSecond,
  };
}
