/** Wrong usage ends with 2 and one line; help is there for every command, with an example. */
import { expect, test } from "bun:test";
import { run } from "./run.ts";
import { temporaryFolder } from "../temporary.ts";

const commands = [
  ["serve"],
  ["apply"],
  ["export"],
  ["get"],
  ["delete"],
  ["publish"],
  ["tail"],
  ["read"],
  ["token"],
  ["token", "create"],
  ["token", "list"],
  ["token", "revoke"],
  ["hook"],
  ["hook", "verify"],
  ["send"],
  ["listen"],
  ["doctor"],
  ["trace"],
  ["map"],
  ["map", "explain"],
  ["log"],
  ["log", "verify"],
  ["log", "stat"],
  ["rule"],
  ["rule", "test"],
  ["rule", "preview"],
  ["rule", "explain"],
  ["rule", "history"],
  ["rule", "diff"],
  ["rule", "rollback"],
  ["route"],
  ["route", "pause"],
  ["route", "resume"],
  ["route", "seek"],
  ["route", "parked"],
  ["route", "release"],
  ["dead-letters"],
  ["dead-letters", "list"],
  ["dead-letters", "show"],
  ["dead-letters", "retry"],
  ["dead-letters", "drop"],
  ["replay"],
  ["replays"],
  ["replays", "list"],
  ["replays", "cancel"],
];

const wrong: readonly (readonly [args: string, says: string])[] = [
  ["", "isthmus needs a command; see isthmus --help"],
  ["gett", "unknown command 'gett' (Did you mean get?); see isthmus --help"],
  ["--jsn", "unknown option '--jsn'; see isthmus --help"],
  ["get", "missing required argument 'kind'; see isthmus get --help"],
  ["get rulez", 'there is no kind "rulez"; did you mean "rules"?'],
  ["get rule a b", "too many arguments"],
  ["get tokens orders", "isthmus get tokens"],
  ["get rules --serv x", "unknown option '--serv'"],
  ["get rules --server", "argument missing"],
  ["get rules --server ftp://x", '--server: "ftp://x" is not an address'],
  ["get rules --server http://u:p@127.0.0.1", "give the token with --token"],
  ["dead-letters retry r", "which ones? give PARTITION/OFFSET, a filter, or --all"],
  ["dead-letters show r x", '"x" is not PARTITION/OFFSET'],
  ["dead-letters retry r 0/1 --set {", "--set is not JSON"],
  ["replay s --from earliest", "required option '--rule <name>'"],
  ["delete rule", "missing required argument 'name'"],
  ["delete routes x", "routes belong to rules"],
  ["delete token x", "isthmus token revoke x"],
  ["apply", "required option '-f, --file <file>' not specified"],
  ["publish", "missing required argument 'stream'"],
  ["publish s --header nonsense", '--header "nonsense" is not NAME=VALUE'],
  ["read s", "required option '--from <place>' not specified"],
  ["read s --from earliest --max 0", '--max "0" is not a whole number from 1'],
  ["read s --from earliest --partition -1", '--partition "-1" is not a whole number from 0'],
  ["send h", "required option '-f, --file <file>' not specified"],
  ["listen h", "required option '--forward <url>' not specified"],
  ["listen h --forward nowhere", '--forward: "nowhere" is not an address'],
  ["listen h --forward http://x --last 1 --from earliest", "--last and --from: give one of them"],
  ["listen h --forward http://x --last -1", '--last "-1" is not a whole number'],
  ["hook verify orders 5", '"5" is not PARTITION/OFFSET'],
  ["tail", "missing required argument 'stream'"],
  ["rule", "isthmus rule needs a command; see isthmus rule --help"],
  ["rule test", "required option '-f, --file <file>' not specified"],
  ["rule preview r", "required option '-f, --file <file>' not specified"],
  ["rule preview r -f x --last 1h --from 3", "give either --last or --from"],
  ["rule explain orders x", '"x" is not PARTITION/OFFSET'],
  ["rule diff r x", 'A "x" is not a whole number from 1'],
  ["rule rollback r --to 0", '--to "0" is not a whole number from 1'],
  ["get rules --revision 3", "--revision needs a name"],
  ["token", "isthmus token needs a command; see isthmus token --help"],
  ["token make", "unknown command 'make'"],
  ["token create", "missing required argument 'name'"],
  ["token create x", "give --role, or --sub"],
  ["token create x --role king", '--role "king" is not one of viewer, operator, admin'],
  ["token create x --role admin --sub y", "either --role, or --sub"],
  ["token create x --role admin --read y", "either --role, or --sub"],
  ["token create x --sub y", "could do nothing"],
  ["token create x --sub y --read :k", '--read ":k" is not STREAM or STREAM:KEY'],
  ["token create x --role admin --expires soon", '--expires "soon" is not a duration such as'],
  ["token create x --role admin --expires 0d", '--expires "0d" is not a duration such as'],
];

for (const [args, says] of wrong) {
  test(`refuses \`isthmus ${args}\` in one line with exit code 2`, async () => {
    await using folder = await temporaryFolder("cli");
    const words = args === "" ? [] : args.split(" ");
    const { exitCode, stdout, stderr } = await run(words, { folder: folder.path, input: "" });
    expect(stderr).toStartWith("isthmus: ");
    expect(stderr).toContain(says);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(exitCode).toBe(2);
  });
}

const unavailable: readonly (readonly [args: string, command: string])[] = [
  ["migrate", "migrate"],
  ["migrate plan --from a", "migrate plan"],
  ["migrate --help", "migrate"],
  ["help migrate", "migrate"],
  ["bench", "bench"],
];

for (const [args, command] of unavailable) {
  test(`says that \`isthmus ${args}\` is not available yet, with exit code 2`, async () => {
    await using folder = await temporaryFolder("cli");
    const ran = await run(args.split(" "), { folder: folder.path });
    expect(ran).toEqual({
      exitCode: 2,
      stdout: "",
      stderr: `isthmus ${command} is not available yet\n`,
    });
  });
}

for (const command of commands) {
  test(`shows help with an example for \`isthmus ${command.join(" ")}\``, async () => {
    await using folder = await temporaryFolder("cli");
    const ran = await run([...command, "--help"], { folder: folder.path });
    expect(ran.exitCode).toBe(0);
    expect(ran.stderr).toBe("");
    expect(ran.stdout).toStartWith(`Usage: isthmus ${command.join(" ")}`);
    expect(ran.stdout).toMatch(/^Examples?:\n {2}isthmus /m);
  });
}

test("lists in its help what works, and not what isn't there yet", async () => {
  await using folder = await temporaryFolder("cli");
  const { stdout, exitCode } = await run(["--help"], { folder: folder.path });
  expect(exitCode).toBe(0);
  for (const [name = ""] of commands) expect(stdout).toContain(`\n  ${name} `);
  const built = new Set(commands.map(([name]) => name));
  for (const [, command] of unavailable) {
    if (built.has(command.split(" ")[0] ?? "")) continue;
    expect(stdout).not.toContain(`\n  ${command.split(" ")[0]} `);
  }
});

test("tells its version", async () => {
  await using folder = await temporaryFolder("cli");
  const { stdout, exitCode } = await run(["--version"], { folder: folder.path });
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect(exitCode).toBe(0);
});

test("refuses wrong settings in one line with exit code 2", async () => {
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_PORT: "many" };
  const { exitCode, stderr } = await run(["get", "rules"], { folder: folder.path, env });
  expect(stderr).toBe('isthmus: ISTHMUS_PORT: "many" is not a port; give 1 to 65535\n');
  expect(exitCode).toBe(2);
});
