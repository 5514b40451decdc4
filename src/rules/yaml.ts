/**
 * Reads definition files: YAML 1.2 or JSON, as plain data with positions. What YAML does behind
 * its author's back is refused with the place and the fix: tags (`where: !x`), anchors, aliases,
 * merge keys, duplicate keys, several documents, numbers that would lose digits.
 */
import {
  type Document,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  type YAMLParseError,
} from "yaml";
import { type InvalidDetail, InvalidError } from "../errors.ts";
import { definitionsCharsMax, documentDepthMax } from "./limits.ts";
import type { Json } from "./document.ts";
import { escapePointer } from "./template.ts";

/** A place in a file, from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** A parsed file. */
export interface ParsedFile {
  readonly value: Json;
  /** Where a JSON pointer's value stands; of what is missing, where the nearest around it does. */
  locate(pointer: string): Place;
  /** The same error with every line and column counted in the file, which is named. */
  explain(error: InvalidError): InvalidError;
}

/**
 * Parses a definitions file.
 * @throws InvalidError `definition-invalid`, each detail with line and column in the file.
 */
export function parseFile(text: string, filename: string): ParsedFile {
  return new Reader(text, filename).read();
}

/** Levels above a document: the file and the map of its kind. */
const DEPTH_MAX = documentDepthMax + 2;

/** Syntax errors that one answer names: after the first most are its consequences. */
const ERRORS_MAX = 10;

type AnyNode = Node | Pair | null | undefined;

class Reader {
  readonly #text: string;
  readonly #filename: string;
  readonly #lines = new LineCounter();
  readonly #errors: InvalidDetail[] = [];
  /** The node of each pointer. */
  readonly #nodes = new Map<string, Node>();

  constructor(text: string, filename: string) {
    this.#text = text;
    this.#filename = filename;
  }

  read(): ParsedFile {
    if (this.#text.length > definitionsCharsMax) {
      this.#refuse(0, "", `the file has more than ${definitionsCharsMax} characters`);
    }
    this.#throwIfAny();
    const value = this.#convert(this.#parse(), "", 0);
    this.#throwIfAny();
    return {
      value,
      locate: (pointer) => this.#placeAt(this.#offsetOf(pointer)),
      explain: (error) => this.#explain(error),
    };
  }

  #parse(): AnyNode {
    const documents = this.#parseAll();
    const [first, second] = documents;
    for (const error of documents.flatMap((each) => each.errors).slice(0, ERRORS_MAX)) {
      this.#refuse(error.pos[0], "", this.#sentence(error));
    }
    if (second !== undefined) {
      this.#refuse(
        second.range?.[0] ?? 0,
        "",
        "a file holds one document: expected no further ---",
      );
    }
    this.#throwIfAny();
    return first?.contents;
  }

  #parseAll(): Document[] {
    try {
      return parseAllDocuments(this.#text, {
        version: "1.2",
        schema: "core",
        lineCounter: this.#lines,
        prettyErrors: false,
        intAsBigInt: true,
        uniqueKeys: true,
        merge: false,
      }) as Document[];
    } catch (cause) {
      // The parser is recursive: what it can't hold on its stack is far beyond the bound.
      if (!(cause instanceof RangeError)) throw cause;
      this.#refuse(0, "", `nested deeper than ${DEPTH_MAX} levels`);
      return [];
    }
  }

  /** The library's sentence, or one of ours where it leaves the fix open. */
  #sentence({ code, message, pos }: YAMLParseError): string {
    if (code === "RESOURCE_EXHAUSTION") return `nested deeper than ${DEPTH_MAX} levels`;
    if (code === "DUPLICATE_KEY") return "this key stands here twice: expected each key once";
    if (this.#text[pos[0] - 1] === "$" && this.#text[pos[0]] === "{") {
      return "a value with ${…} is quoted in flow style, between { } or [ ]";
    }
    return message;
  }

  #convert(node: AnyNode, pointer: string, depth: number): Json {
    if (node === null || node === undefined || isPair(node)) return null;
    this.#nodes.set(pointer, node);
    const offset = node.range?.[0] ?? 0;
    if (isAlias(node)) {
      return this.#refuse(offset, pointer, "aliases (*name) are not taken: write the value out");
    }
    if (node.tag !== undefined && this.#text.startsWith("!", this.#tagOffset(offset))) {
      const fix = `${node.tag} is a YAML tag: quote the value when the ! belongs to it`;
      return this.#refuse(this.#tagOffset(offset), pointer, fix);
    }
    if (node.anchor !== undefined) {
      this.#refuse(
        offset,
        pointer,
        "anchors (&name) are not taken: write the value where it is used",
      );
    }
    if (depth > DEPTH_MAX) {
      return this.#refuse(offset, pointer, `nested deeper than ${DEPTH_MAX} levels`);
    }
    if (isScalar(node)) return this.#scalar(node.value, offset, pointer);
    if (isSeq(node)) {
      return node.items.map((item, index) =>
        this.#convert(item as AnyNode, `${pointer}/${index}`, depth + 1),
      );
    }
    return isMap(node) ? this.#map(node.items, pointer, depth) : null;
  }

  #map(pairs: readonly Pair[], pointer: string, depth: number): Json {
    const entries: [string, Json][] = [];
    for (const pair of pairs) {
      const key = pair.key as AnyNode;
      const offset = (isPair(key) ? null : key?.range?.[0]) ?? 0;
      const name = this.#keyName(key, offset, pointer);
      if (name === null) continue;
      const place = `${pointer}/${escapePointer(name)}`;
      const value = this.#convert(pair.value as AnyNode, place, depth + 1);
      if (!this.#nodes.has(place) && key !== null && key !== undefined && !isPair(key)) {
        this.#nodes.set(place, key);
      }
      entries.push([name, value]);
    }
    return Object.fromEntries(entries);
  }

  #keyName(key: AnyNode, offset: number, pointer: string): string | null {
    if (!isScalar(key) || key.value === null || key.tag !== undefined || key.anchor !== undefined) {
      return this.#refuse(offset, pointer, "expected a plain key");
    }
    if (key.value === "<<") {
      return this.#refuse(offset, pointer, "merge keys (<<) are not taken: write the keys out");
    }
    return typeof key.value === "string" ? key.value : (key.source ?? String(key.value as number));
  }

  #scalar(value: unknown, offset: number, pointer: string): Json {
    if (typeof value === "bigint") {
      const number = Number(value);
      if (Number.isSafeInteger(number)) return number;
    } else if (value === null || typeof value === "string" || typeof value === "boolean") {
      return value;
    } else if (typeof value === "number" && Number.isFinite(value)) return value;
    const detail = 'a number out of range: quote it, or write "${…}" to keep it a number';
    return this.#refuse(offset, pointer, detail);
  }

  /**
   * A node's range starts after its tag; the tag is before it, with spaces and an anchor between.
   */
  #tagOffset(offset: number): number {
    const before = this.#text.slice(0, offset).trimEnd();
    const match = /![^\s,[\]{}]*(?:\s+&\S*)?$/.exec(before);
    return match === null ? offset : match.index;
  }

  #offsetOf(pointer: string): number {
    let around = pointer;
    while (around !== "" && !this.#nodes.has(around)) {
      around = around.slice(0, around.lastIndexOf("/"));
    }
    return this.#nodes.get(around)?.range?.[0] ?? 0;
  }

  #explain(error: InvalidError): InvalidError {
    const errors = error.errors.map((detail) => this.#inFile(detail));
    const [first] = errors;
    if (first === undefined) return error;
    return this.#error(first, errors, error);
  }

  /** Line and column of an expression become those of the file, where the text is as written. */
  #inFile(detail: InvalidDetail): InvalidDetail {
    const offset = this.#offsetOf(detail.pointer);
    const { line, column } = detail;
    if (line === undefined || column === undefined) return { ...detail, ...this.#placeAt(offset) };
    const node = this.#nodes.get(detail.pointer);
    const text = isScalar(node) && typeof node.value === "string" ? node.value : "";
    const inText = startOfLine(text, line) + column - 1;
    const inFile = this.#sourceOffset(offset, isScalar(node) ? node.type : undefined, text, inText);
    return { ...detail, ...this.#placeAt(inFile) };
  }

  #sourceOffset(start: number, type: string | undefined, text: string, inText: number): number {
    if (type === "BLOCK_LITERAL") {
      const before = text.slice(0, inText).split("\n");
      let line = this.#text.indexOf("\n", start) + 1;
      for (let index = 1; index < before.length; index++) {
        line = this.#text.indexOf("\n", line) + 1;
      }
      const indent = /^ */.exec(this.#text.slice(line))?.[0].length ?? 0;
      return line + indent + (before.at(-1)?.length ?? 0);
    }
    const quoted = type === "QUOTE_DOUBLE" || type === "QUOTE_SINGLE" ? 1 : 0;
    const asWritten = this.#text.startsWith(text.slice(0, inText), start + quoted);
    return asWritten ? start + quoted + inText : start;
  }

  #placeAt(offset: number): Place {
    const { line, col } = this.#lines.linePos(offset);
    return line === 0 ? { line: 1, column: offset + 1 } : { line, column: col };
  }

  #refuse(offset: number, pointer: string, detail: string): null {
    this.#errors.push({ pointer, detail, ...this.#placeAt(offset) });
    return null;
  }

  #throwIfAny(): void {
    const [first] = this.#errors;
    if (first !== undefined) throw this.#error(first, this.#errors);
  }

  #error(first: InvalidDetail, errors: readonly InvalidDetail[], cause?: InvalidError) {
    const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : "";
    const place = `${this.#filename}:${first.line ?? 1}:${first.column ?? 1}`;
    const pointer = first.pointer === "" ? "" : `${first.pointer}: `;
    const message = `${place}: ${pointer}${first.detail}${more}`;
    return new InvalidError(message, errors, { code: "definition-invalid", cause });
  }
}

function startOfLine(text: string, line: number): number {
  let start = 0;
  for (let index = 1; index < line; index++) start = text.indexOf("\n", start) + 1;
  return start;
}
