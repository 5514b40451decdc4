/**
 * The parser of an access's document: how the tokens of its clients are checked, and which streams
 * (and keys, and messages) such a client may read and write.
 */
import { z } from "zod";
import { grantsMax } from "../limits.ts";
import type { AccessDocument, Grant, JsonObject } from "./document.ts";
import { compileExpression } from "./expression.ts";
import { parseJwt } from "./jwt.ts";
import type { ParseContext } from "./place.ts";
import type { Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";

/** A stream's name in which `*` stands for any characters. */
const STREAM_PATTERN = /^[A-Za-z0-9*][A-Za-z0-9._*-]{0,99}$/;
/** A key that looks like a claim and is none would be taken for a literal: a silent mistake. */
const CLAIM_KEY = /^claims\.[A-Za-z0-9_]+$/;

const key = z
  .string()
  .min(1)
  .refine((text) => !text.startsWith("claims.") || CLAIM_KEY.test(text), {
    message: "expected claims.NAME, a name of letters, digits and _",
  });

const grantsShape = z
  .array(
    shapes.strict({
      stream: z
        .string()
        .regex(STREAM_PATTERN, "expected a stream's name, in which * stands for any"),
      key: key.optional(),
      where: shapes.expression.optional(),
    }),
  )
  .max(grantsMax)
  .optional();

const accessShape = shapes.strict({
  jwt: z.record(z.string(), z.unknown()).optional(),
  read: grantsShape,
  write: grantsShape,
});

/** Parses the document of an access. */
export function parseAccess(
  document: JsonObject,
  _context: ParseContext,
  problems: Problems,
): AccessDocument | null {
  const shape = accessShape.safeParse(document);
  if (!shape.success) problems.addIssues(document, shape.error.issues);
  const { jwt } = document;
  const checked = jwt === undefined ? null : parseJwt(jwt, "/jwt", problems);
  if (!shape.success || (jwt !== undefined && checked === null)) return null;
  const { data } = shape;
  return {
    read: grantsOf("read", data.read, problems),
    write: grantsOf("write", data.write, problems),
    jwt: checked,
  };
}

function grantsOf(
  side: "read" | "write",
  grants: z.infer<typeof grantsShape>,
  problems: Problems,
): readonly Grant[] {
  return (grants ?? []).map(({ stream, key: granted = null, where }, index): Grant => {
    if (where === undefined) return { stream, key: granted };
    problems.check(`/${side}/${index}/where`, () => compileGrantWhere(side, where));
    return { stream, key: granted, where };
  });
}

/**
 * Compiles the `where` of a grant. What is written has no place in the log yet.
 * @throws InvalidError with line, column and what was expected
 */
export function compileGrantWhere(side: "read" | "write", source: string) {
  return compileExpression(source, { claims: true, condition: true, stored: side === "read" });
}
