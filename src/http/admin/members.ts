/** The members of a JSON body that asks for something done: each known by name, each checked. */
import { InvalidError } from "../../errors.ts";
import type { Json, JsonObject } from "../../rules/document.ts";
import { escapePointer } from "../../rules/template.ts";
import { didYouMean } from "../../rules/suggest.ts";
import { parseRate, type Rate, RATE_FORM } from "../../rules/units.ts";
import { refused } from "../request.ts";
import { documentOf } from "./document-body.ts";

/** The members of one body. */
export class Members {
  readonly #members: JsonObject;

  /** @throws InvalidError no object, or a member that is not known. */
  constructor(body: Uint8Array, contentType: string, known: readonly string[]) {
    this.#members = body.length === 0 ? {} : documentOf(body, contentType);
    for (const name of Object.keys(this.#members)) {
      if (known.includes(name)) continue;
      throw refused(name, `there is no such member${didYouMean(name, known)}`);
    }
  }

  /** Text; null when it is not there. @throws InvalidError */
  text(name: string): string | null {
    const value = this.#value(name);
    if (value === null || (typeof value === "string" && value !== "")) return value;
    throw refused(name, "expected text");
  }

  /** @throws InvalidError it is not there. */
  needed(name: string): string {
    const value = this.text(name);
    if (value === null) throw refused(name, "expected text, found nothing");
    return value;
  }

  flag(name: string): boolean {
    const value = this.#value(name);
    if (value === null || typeof value === "boolean") return value ?? false;
    throw refused(name, "expected true or false");
  }

  rate(name: string, countMax: number): Rate | null {
    const value = this.#value(name);
    if (value === null) return null;
    const rate = parseRate(value, countMax);
    if (rate !== null && rate.count > 0) return rate;
    throw refused(name, `expected ${RATE_FORM}`);
  }

  /** An object of known members. @throws InvalidError */
  object(name: string, known: readonly string[]): JsonObject | null {
    const value = this.#value(name);
    if (value === null) return null;
    if (typeof value !== "object" || Array.isArray(value))
      throw refused(name, "expected an object");
    for (const member of Object.keys(value)) {
      if (known.includes(member)) continue;
      const detail = `there is no such member${didYouMean(member, known)}`;
      const pointer = `/${escapePointer(name)}/${escapePointer(member)}`;
      throw new InvalidError(`${name}.${member}: ${detail}`, [{ pointer, detail }]);
    }
    return value as JsonObject;
  }

  #value(name: string): Json {
    return this.#members[name] ?? null;
  }
}
