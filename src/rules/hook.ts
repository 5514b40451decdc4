/**
 * The parser of a hook's document: where its webhooks go, how their senders are verified, what they
 * are answered and how many may come. Secrets are looked at only as texts: they may be references.
 */
import { z } from "zod";
import { bodyBytesMax, hookConcurrencyMax, hookRateMax } from "../limits.ts";
import type { ChallengeDocument, HookDocument, HookLimits, JsonObject } from "./document.ts";
import { checkEarly } from "./kinds.ts";
import { isObject, type ParseContext } from "./place.ts";
import type { Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { parseDurationMs } from "./units.ts";
import { parseVerify } from "./verify.ts";

/** Methods by which a webhook can come; the rest are probes, handshakes or mistakes. */
const METHODS = ["POST", "PUT", "PATCH", "GET", "DELETE"] as const;
const RATE = /^([1-9]\d{0,8})\/(ms|s|m|h|d|\d+(?:ms|s|m|h|d))$/;
const RATE_FORM = "a rate such as 100/s, 5000/m or 20/10s";
/** The characters that a header's value may have, for a content type. */
const CONTENT_TYPE = /^[\x20-\x7e]{1,200}$/;
/** A body that is answered; longer ones belong to a program. Characters. */
const answerCharsMax = 16_384;

const rate = z.unknown().transform((value, context) => {
  const match = typeof value === "string" ? RATE.exec(value) : null;
  const unit = match?.[2] ?? "";
  const perMs = parseDurationMs(/^\d/.test(unit) ? unit : `1${unit}`);
  const count = Number(match?.[1]);
  if (match !== null && perMs !== null && perMs > 0 && count <= hookRateMax) {
    return { count, perMs };
  }
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
    })
    .optional(),
  methods: z.array(shapes.word(METHODS)).min(1).optional(),
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
  };
}

const NOT_VERIFIED: Pick<HookDocument, "verify" | "challenge"> = {
  verify: null,
  challenge: null as ChallengeDocument | null,
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
  return { bodyBytes, rate: limits?.rate ?? null, concurrency: limits?.concurrency ?? null };
}
