/**
 * The style of the tree, as tests: what a formatter and a linter cannot know about this project.
 * Each rule is one test; what breaks it is listed as `file:line`, with the mend.
 */
import { describe, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { Glob } from "bun";

const root = dirname(import.meta.dir);
const linesMax = 400;
const columnsMax = 100;
const headerCharsMin = 30;

interface SourceFile {
  /** From the project's folder, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

const tracked = trackedFiles();
const sources = tracked
  .filter((path) => /^(src|bridges|schema|tests)\/.*\.(ts|tsx|mjs)$/.test(path))
  .map(readSource);
/** What is shipped: everything but tests. */
const shipped = sources.filter(({ path }) => !path.startsWith("tests/"));

describe("imports", () => {
  test("the schema imports nothing of ours", () => {
    refuse(
      importsOf("schema/").filter(({ to }) => !to.startsWith("schema/")),
      "pass what it needs in by parameter",
    );
  });

  test("a bridge imports the port, and neither the gateway nor another bridge", () => {
    const port = /^src\/(bridge|message|errors|assert|clock|backoff|json|limits)\.ts$/;
    const bad = importsOf("bridges/").filter(({ file, to }) => {
      const folder = dirname(file.path);
      const isOwn = to.startsWith(`${folder}/`) || dirname(to) === "bridges";
      const isRegistered = file.path === "bridges/registry.ts" && to.startsWith("bridges/");
      return !(port.test(to) || isOwn || isRegistered);
    });
    refuse(
      bad,
      "a bridge knows src/bridge.ts and what that is made of; move the rest to its caller",
    );
  });

  test("only src/main.ts imports a bridge, through the registry", () => {
    const bad = importsOf("src/").filter(
      ({ file, to }) =>
        to.startsWith("bridges/") && !(file.path === "src/main.ts" && to === "bridges/registry.ts"),
    );
    refuse(bad, "take a BridgeModule by parameter; src/main.ts hands the registered ones out");
  });

  test("log, rules, routing, http and cli import downwards only", () => {
    const layers = ["log", "rules", "routing", "http", "cli"];
    const layerOf = (path: string): number => layers.indexOf(/^src\/(\w+)\//.exec(path)?.[1] ?? "");
    const bad = importsOf("src/").filter(
      ({ file, to }) => layerOf(file.path) >= 0 && layerOf(to) > layerOf(file.path),
    );
    refuse(bad, "let the upper one call, or take an interface by parameter");
  });

  test("the client SDK stands alone", () => {
    refuse(
      importsOf("src/client/").filter(({ to }) => !to.startsWith("src/client/")),
      "it runs in browsers: copy the type, not the gateway",
    );
  });

  test("nothing that is shipped imports a test", () => {
    const bad = shipped.flatMap(importsIn).filter(({ to }) => to.startsWith("tests/"));
    refuse(bad, "move what both need out of tests/");
  });

  test("every file that is shipped is used", () => {
    const entries = new Set([
      "src/cli/isthmus.mjs",
      "src/cli/main.ts",
      "src/client/client.ts",
      "schema/drizzle.config.ts",
      "schema/prepare.ts",
    ]);
    const used = new Set(shipped.flatMap(importsIn).map(({ to }) => to));
    const dead = shipped.filter(({ path }) => !entries.has(path) && !used.has(path));
    refuse(
      dead.map((file) => ({ file, line: 1 })),
      "import it where it is needed, or delete it",
    );
  });
});

describe("sizes", () => {
  test(`no file has more than ${linesMax} lines`, () => {
    const bad = sources.filter(({ lines }) => lines.length - 1 > linesMax);
    refuse(
      bad.map((file) => ({ file, line: file.lines.length - 1 })),
      "find the second purpose in it and give that a file",
    );
  });

  test(`no comment is wider than ${columnsMax} columns; of code the formatter sees to that`, () => {
    // The closing mark of a one-line comment may stand beyond.
    const tooWide = new RegExp(`^(?!.*https?://).{${columnsMax}}(?! ?\\*?/$).`, "u");
    const bad = sources.flatMap((file) => linesLike(file, tooWide)).filter(isComment);
    refuse(bad, "break the line");
  });
});

interface Ban {
  readonly what: string;
  readonly pattern: RegExp;
  readonly instead: string;
  /** The files that the rule protects the others from having to be. */
  readonly allowed: readonly RegExp[];
}

const commandLine = /^src\/cli\//;
const clock = /^src\/clock\.ts$/;
const disk = /^src\/log\/disk\.ts$/;
const compositionRoot = /^src\/main\.ts$/;
/** The client's own clock and chance: it stands alone, in browsers too. */
const clientPlatform = /^src\/client\/platform\.ts$/;
/** The lock and its pid; keys, tokens and the snapshot: small files next to the log's own. */
const besideTheLog = /^src\/(log\/lock|rules\/store\/files)\.ts$/;
/** What is made once when the schema changes, and read as a part of the program. */
const schemaFiles = /^schema\/(prepare|prepared|drizzle\.config)\.ts$/;

const bans: readonly Ban[] = [
  {
    what: "the time of day",
    pattern: /\bDate\.now\b|\bnew Date\(\)/,
    instead: "Clock.nowMs()",
    allowed: [clock, commandLine, clientPlatform],
  },
  {
    what: "the monotonic time",
    pattern: /\bperformance\.now\b|\bBun\.nanoseconds\b|\bhrtime\b/,
    instead: "Clock.monotonicMs()",
    allowed: [clock, commandLine, clientPlatform],
  },
  {
    what: "a timer",
    pattern: /(?<!typeof )\b(setTimeout|setInterval)\b|\bBun\.sleep\b/,
    instead: "Clock.sleep()",
    allowed: [clock, commandLine, clientPlatform],
  },
  {
    what: "chance",
    pattern: /\bMath\.random\b/,
    instead: "a `random` by parameter, or crypto for what must not be guessed",
    allowed: [compositionRoot, clientPlatform],
  },
  {
    what: "the environment",
    pattern: /\b(process|Bun|import\.meta)\.env\b/,
    instead: "Config, which src/config.ts makes",
    allowed: [/^src\/config\.ts$/, commandLine],
  },
  {
    what: "the console",
    pattern: /\bconsole\./,
    instead: "the Telemetry that comes in by parameter",
    allowed: [/^src\/telemetry\.ts$/, commandLine],
  },
  {
    what: "the disk",
    pattern: /"(node:)?fs(\/promises)?"|\bBun\.(file|write)\(/,
    instead: "Disk of src/log/disk.ts, by parameter",
    allowed: [disk, besideTheLog, /^src\/config\.ts$/, compositionRoot, commandLine, schemaFiles],
  },
];

describe("banned calls", () => {
  for (const { what, pattern, instead, allowed } of bans) {
    test(`${what} comes in by parameter`, () => {
      const files = shipped.filter(({ path }) => !allowed.some((each) => each.test(path)));
      refuse(codeLines(files, pattern), `use ${instead}`);
    });
  }
});

describe("files", () => {
  test("there is no barrel and no re-export", () => {
    refuse(
      codeLines(shipped, /^export (\*|(type )?\{[^}]*\}) *(as \w+ )?from\b/),
      "import from the file that defines the name",
    );
  });

  test("there is no default export", () => {
    const files = sources.filter(({ path }) => !path.endsWith(".config.ts"));
    refuse(codeLines(files, /^export default\b/), "export it by name");
  });

  test("a file is named by what it holds", () => {
    const bad = sources.filter(({ path }) =>
      /\/(types|utils?|helpers?|common|index|misc)\.\w+$/.test(path),
    );
    refuse(
      bad.map((file) => ({ file, line: 1 })),
      "name it by its concept; a type lives where it is made",
    );
  });

  test("every file opens with a comment that tells what it is", () => {
    const bad = sources.filter(({ text }) => {
      const header = /^(#![^\n]*\n)?\/\*\*([\s\S]*?)\*\//.exec(text)?.[2] ?? "";
      return header.replaceAll(/[\s*]+/g, " ").trim().length < headerCharsMin;
    });
    refuse(
      bad.map((file) => ({ file, line: 1 })),
      "open it with /** what it is, its invariant, its place in the flow */",
    );
  });

  test("nothing is left for later", () => {
    const leftOver = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);
    const bad = sources.flatMap((file) => linesLike(file, leftOver));
    refuse(bad, "do it, or say in a whole sentence what will settle it");
  });

  test("the project speaks of no machine", () => {
    const folders = ["wor" + "k", "far" + "m", "root", "home", "Users"].join("|");
    const pattern = new RegExp(`\\.\\.\\/sha${"red"}\\b|(?<![\\w.~-])/(${folders})/\\w`);
    const texts = tracked
      .filter((path) => !/\.(png|zst|gz|ico|woff2|lock)$/.test(path))
      .map(readSource);
    refuse(
      texts.flatMap((file) => linesLike(file, pattern)),
      "say it relative to the project's folder",
    );
  });
});

test("the changelog has one section a version, newest first, each line a point", () => {
  if (!existsSync(join(root, "CHANGELOG.md"))) return;
  const file = readSource("CHANGELOG.md");
  const heading = /^## (Unreleased|\[?(\d+\.\d+\.\d+)\]?( - \d{4}-\d{2}-\d{2})?)$/;
  const allowed = /^(# Changelog|## .*|### .*|- .*|  \S.*|)$/;
  const bad: Finding[] = [];
  const versions: string[] = [];
  file.lines.forEach((text, index) => {
    const isIntroduction = versions.length === 0 && !text.startsWith("#");
    if (!isIntroduction && !allowed.test(text)) bad.push({ file, line: index + 1 });
    if (!text.startsWith("## ")) return;
    const version = heading.exec(text)?.[2] ?? (text === "## Unreleased" ? "999.0.0" : null);
    const previous = versions.at(-1);
    const isOlder = previous === undefined || Bun.semver.order(version ?? "0.0.0", previous) < 0;
    if (version === null || !isOlder) bad.push({ file, line: index + 1 });
    versions.push(version ?? "0.0.0");
  });
  if (file.lines[0] !== "# Changelog") bad.push({ file, line: 1 });
  refuse(bad, "write `# Changelog`, `## 1.2.3 - 2026-01-31` or `## Unreleased`, `- what changed`");
});

interface Finding {
  readonly file: SourceFile;
  readonly line: number;
}

interface Import extends Finding {
  /** The path that is imported, from the project's folder. */
  readonly to: string;
}

function refuse(findings: readonly Finding[], mend: string): void {
  if (findings.length === 0) return;
  const places = findings.map(({ file, line }) => {
    const text = (file.lines[line - 1] ?? "").trim().slice(0, columnsMax);
    return `  ${file.path}:${line}  ${text}`;
  });
  throw new Error(`${mend}\n${places.join("\n")}`);
}

/** Tracked files and those that git would take; without git, all but what is never tracked. */
function trackedFiles(): string[] {
  const args = ["ls-files", "--cached", "--others", "--exclude-standard"];
  const git = Bun.which("git") === null ? null : Bun.spawnSync(["git", ...args], { cwd: root });
  const paths =
    git?.exitCode === 0
      ? git.stdout.toString().split("\n")
      : [...new Glob("**/*").scanSync({ cwd: root, dot: true })].filter(
          (path) => !/^(node_modules|\.git|\.cache|data)\//.test(path),
        );
  return paths.filter((path) => path !== "" && isFile(path)).toSorted();
}

function isFile(path: string): boolean {
  return statSync(join(root, path), { throwIfNoEntry: false })?.isFile() ?? false;
}

function readSource(path: string): SourceFile {
  const text = readFileSync(join(root, path), "utf8");
  return { path, text, lines: text.split("\n") };
}

function importsOf(folder: string): Import[] {
  return sources.filter(({ path }) => path.startsWith(folder)).flatMap(importsIn);
}

/** The imports of our own files, of types too, static and dynamic. */
function importsIn(file: SourceFile): Import[] {
  const pattern =
    /^[ \t]*(?:import|export)\b[^;"]*?\bfrom\s*"(\.[^"]+)"|^[ \t]*import\s*"(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm;
  return [...file.text.matchAll(pattern)].map((match) => {
    const target = match[1] ?? match[2] ?? match[3] ?? "";
    const end = match.index + match[0].length;
    return {
      file,
      line: file.text.slice(0, end).split("\n").length,
      to: posix.join(posix.dirname(file.path), target),
    };
  });
}

function linesLike(file: SourceFile, pattern: RegExp): Finding[] {
  return file.lines.flatMap((text, index) =>
    pattern.test(text) ? [{ file, line: index + 1 }] : [],
  );
}

/** As `linesLike`, for lines that are not comments. */
function codeLines(files: readonly SourceFile[], pattern: RegExp): Finding[] {
  return files.flatMap((file) => linesLike(file, pattern)).filter((finding) => !isComment(finding));
}

function isComment({ file, line }: Finding): boolean {
  return /^\s*(\/?\*|\/\/)/.test(file.lines[line - 1] ?? "");
}
