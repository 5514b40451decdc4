/**
 * What senders ask before they send, as a hook's `verify` words it: a parameter of a GET that is
 * given back (`challenge`, with or without a `token`), and a member of a POST's JSON (`echo`). An
 * echo is never stored, so its words have to keep it apart from events.
 */
import { z } from "zod";
import { hookEchoDepthMax } from "../limits.ts";
import type { ChallengeDocument, EchoDocument } from "./document.ts";
import { checkEarly } from "./kinds.ts";
import type { Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";

/** The keys of `verify` that are read here; every scheme takes them. */
export const CHALLENGE_KEYS = ["challenge", "token", "echo"];

const parameter = z.string().min(1).max(100);

/** Their shapes. */
export const CHALLENGE_MEMBERS = {
  challenge: z
    .union([shapes.strict({ parameter, token: parameter.optional() }), parameter])
    .optional(),
  token: z.string().min(1).optional(),
  echo: shapes
    .strict({
      member: z.string().min(1).max(200),
      when: shapes.expression.optional(),
      as: shapes.word(["text", "json"]).optional(),
    })
    .optional(),
} as const;

const membersShape = z.object(CHALLENGE_MEMBERS);
type Data = z.infer<typeof membersShape>;

/** The challenge; null when there is none, or what is wrong with it is among the problems. */
export function challengeOf(
  { challenge, token }: Pick<Data, "challenge" | "token">,
  problems: Problems,
): ChallengeDocument | null {
  if (challenge === undefined) {
    if (token !== undefined) problems.add("/verify/token", "needs challenge");
    return null;
  }
  if (typeof challenge === "string") {
    if (token !== undefined) {
      problems.add("/verify/challenge", "expected { parameter, token } beside a token");
    }
    return { parameter: challenge, token: null };
  }
  const { parameter: name, token: tokenName } = challenge;
  if (tokenName === undefined && token === undefined) return { parameter: name, token: null };
  if (tokenName === undefined || token === undefined) {
    problems.add(
      "/verify/token",
      "token and challenge.token (the parameter it comes in) go together",
    );
    return null;
  }
  return { parameter: name, token: { parameter: tokenName, text: token } };
}

/** The echo; null when there is none. */
export function echoOf({ echo }: Pick<Data, "echo">, problems: Problems): EchoDocument | null {
  if (echo === undefined) return null;
  checkEarly("/verify/echo/when", echo.when, problems);
  const path = echo.member.split(".");
  if (path.length > hookEchoDepthMax || path.includes("")) {
    const detail = `expected a name, or up to ${hookEchoDepthMax} names with dots between`;
    problems.add("/verify/echo/member", detail);
  }
  return { path, when: echo.when ?? null, as: echo.as ?? "text" };
}
