/**
 * Addresses whose fields hold `${CEL}`. A value put into a topic or routing key may not contain
 * the field's separator or wildcards, nor be empty: one message could reach places that the rule
 * does not name. `raw(x)` allows it.
 */
import { Raw } from "./cel/evaluation.ts";
import { toText } from "./convert.ts";
import type { CompileOptions, Subject } from "./expression.ts";
import { EvaluationError } from "./failure.ts";
import { compileTemplate, compileText, joinParts, type Part, type Template } from "./template.ts";

/** A compiled address. */
export interface AddressTemplate {
  /** It holds no expression: every message goes to the same place. */
  readonly constant: boolean;
  readonly needsBody: boolean;
  /** The fields for a message. @throws EvaluationError */
  render(message: Subject, item?: unknown): Readonly<Record<string, unknown>>;
}

type FieldRender = (message: Subject, item: unknown) => unknown;

/**
 * Compiles an address's fields. Fields with an entry in `specials` are text. `target` names whose
 * address it is.
 * @throws InvalidError line and column within the field's text.
 */
export function compileAddress(
  fields: Readonly<Record<string, unknown>>,
  specials: Readonly<Record<string, string>>,
  target = "",
  item = false,
): AddressTemplate {
  const constants: Record<string, unknown> = {};
  const renders: [name: string, render: FieldRender][] = [];
  let needsBody = false;
  for (const [name, value] of Object.entries(fields)) {
    const options = { site: `${target}/${name}`, item };
    const template = compileTemplate(value, options);
    needsBody ||= template.needsBody;
    if (template.constant) constants[name] = template.render(undefined as never);
    else renders.push([name, compileField({ name, value, template }, specials, options)]);
  }
  if (renders.length === 0) return { constant: true, needsBody, render: () => constants };
  return {
    constant: false,
    needsBody,
    render(message, item) {
      const result = { ...constants };
      for (const [name, render] of renders) result[name] = render(message, item);
      return result;
    },
  };
}

function compileField(
  { name, value, template }: { name: string; value: unknown; template: Template },
  specials: Readonly<Record<string, string>>,
  options: CompileOptions,
): FieldRender {
  if (typeof value !== "string") return (message, item) => template.render(message, item);
  const parts = compileText(value, options);
  const special = Object.hasOwn(specials, name) ? specials[name] : undefined;
  const [only] = parts;
  if (special === undefined && parts.length === 1 && only !== undefined) {
    return (message, item) => typedField(name, only, message, item);
  }
  const checked = special ?? "";
  return (message, item) =>
    joinParts(parts.map((part) => partText(name, part, checked, { message, item })));
}

/** A field that is one expression and no text by nature keeps the value's type. */
function typedField(name: string, part: Part, message: Subject, item: unknown): unknown {
  if (typeof part === "string") return part;
  const value = part.evaluateMarked(message, item);
  if (value instanceof Raw) return value.value;
  if (value === null || value === "") throw new EvaluationError(emptyText(name, part.source));
  return value;
}

function partText(
  name: string,
  part: Part,
  special: string,
  subject: { readonly message: Subject; readonly item: unknown },
): string {
  if (typeof part === "string") return part;
  const value = part.evaluateMarked(subject.message, subject.item);
  if (value instanceof Raw) return value.value === null ? "" : toText(value.value);
  const text = value === null ? "" : toText(value);
  if (text === "") throw new EvaluationError(emptyText(name, part.source));
  for (const sign of special) {
    if (!text.includes(sign)) continue;
    const reason = `the value of \${${part.source}} contains ${JSON.stringify(sign)}`;
    throw new EvaluationError(`${name}: ${reason}, which raw(…) would allow`);
  }
  return text;
}

function emptyText(name: string, source: string): string {
  return `${name}: the value of \${${source}} is empty`;
}
