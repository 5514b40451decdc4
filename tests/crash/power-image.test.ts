/**
 * The power cut: the gateway writes to a disk image, is stopped dead, and the image is copied as it
 * is at that moment: what was not synced is not in it. A gateway on the copy has everything that
 * was acked. Where the machine allows no mounts the test is skipped and says so.
 */
import { describe, expect, test } from "bun:test";
import { copyFile, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { succeeds } from "./tracing.ts";

const CUTS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 50 : 3;
const WRITERS = 8;
const IMAGE_BYTES = 160 * 1024 * 1024;

/** A folder in memory for images, and where one is mounted from it. */
class Images implements AsyncDisposable {
  readonly #folder: string;
  readonly #mounts: string[] = [];
  readonly #remove: AsyncDisposable;

  private constructor(folder: AsyncDisposable & { readonly path: string }) {
    this.#folder = folder.path;
    this.#remove = folder;
  }

  static async make(): Promise<Images> {
    const images = new Images(await temporaryFolder("image"));
    const options = ["-o", "size=512m"];
    if (!(await succeeds(["mount", "-t", "tmpfs", ...options, "tmpfs", images.#folder]))) {
      await images[Symbol.asyncDispose]();
      throw new Error("this machine allows no mounts");
    }
    images.#mounts.push(images.#folder);
    return images;
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Makes an empty ext4 disk. */
  async format(name: string): Promise<void> {
    await writeFile(this.path(name), "");
    await truncate(this.path(name), IMAGE_BYTES);
    if (!(await succeeds(["mkfs.ext4", "-q", "-F", this.path(name)]))) {
      throw new Error("there is no mkfs.ext4");
    }
  }

  /** Mounts an image, whose journal is thereby played back; the folder. */
  async mount(name: string): Promise<string> {
    const folder = this.path(`${name}.mounted`);
    await mkdir(folder, { recursive: true });
    if (!(await succeeds(["mount", "-o", "loop", this.path(name), folder]))) {
      throw new Error("no loop device can be mounted");
    }
    this.#mounts.push(folder);
    return folder;
  }

  async unmount(folder: string): Promise<void> {
    await succeeds(["umount", "-l", folder]);
    this.#mounts.splice(this.#mounts.indexOf(folder), 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const folder of this.#mounts.toReversed()) await succeeds(["umount", "-l", folder]);
    await this.#remove[Symbol.asyncDispose]();
  }
}

/** Why images can't be mounted here; null when they can. */
async function reasonAgainst(): Promise<string | null> {
  try {
    await using images = await Images.make();
    await images.format("try");
    await images.mount("try");
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

interface Acked {
  readonly body: string;
  readonly offset: number;
}

const reason = await reasonAgainst();
const skipped = reason === null ? "" : ` (skipped: ${reason})`;

describe.skipIf(reason !== null)(`a power cut${skipped}`, () => {
  test(`keeps everything that was acked, ${CUTS} times`, async () => {
    await using images = await Images.make();
    await images.format("disk");
    const data = join(await images.mount("disk"), "data");
    await using gateway = await TestGateway.start({ ISTHMUS_DATA: data });
    await gateway.apply({
      hooks: { in: { stream: "s" } },
      rules: { copy: { from: "s", to: { stream: "t" } } },
    });
    const acked: Acked[] = [];
    const sent = new Set<string>();
    const stop = new AbortController();
    const writers = Array.from({ length: WRITERS }, (_, writer) =>
      write(gateway, `writer ${writer}`, { acked, sent, signal: stop.signal }),
    );
    for (let cut = 0; cut < CUTS; cut++) {
      const before = acked.length;
      await waitFor("more was acked", () => acked.length > before + 500);
      process.kill(gateway.pid, "SIGSTOP");
      const promised = [...acked];
      await copyFile(images.path("disk"), images.path("copy"));
      // It stands still until the copy is looked through, so that the image does not fill up.
      await expectAll(images, { promised, sent });
      process.kill(gateway.pid, "SIGCONT");
    }
    stop.abort();
    await Promise.all(writers);
    await gateway.kill();
    console.log(`power cut: ${acked.length} acked, ${CUTS} cuts, none lost`);
  }, 900_000);
});

/** Posts one after another until told to stop. */
async function write(
  gateway: TestGateway,
  name: string,
  run: { readonly acked: Acked[]; readonly sent: Set<string>; readonly signal: AbortSignal },
): Promise<void> {
  for (let seq = 0; !run.signal.aborted; seq++) {
    const body = `${name}, ${seq}, ${"x".repeat(seq % 700)}`;
    run.sent.add(body);
    const answer = await fetch(`${gateway.url}/hooks/in`, { method: "POST", body });
    if (answer.status !== 202) throw new Error(`${body.slice(0, 20)}: ${answer.status}`);
    const { offset } = (await answer.json()) as { offset: number };
    run.acked.push({ body, offset });
  }
}

/** Starts a gateway on the copy: what was promised is there, and nothing that was not sent. */
async function expectAll(
  images: Images,
  { promised, sent }: { readonly promised: readonly Acked[]; readonly sent: ReadonlySet<string> },
): Promise<void> {
  const folder = await images.mount("copy");
  await using second = await TestGateway.start({ ISTHMUS_DATA: join(folder, "data") });
  const held = new Map((await second.read("s")).map(({ offset, body }) => [offset, body ?? ""]));
  expect(promised.filter(({ offset, body }) => held.get(offset) !== body)).toEqual([]);
  expect([...held.values()].filter((body) => !sent.has(body))).toEqual([]);
  await second.drained("copy");
  const copies = new Set((await second.read("t")).map(({ body }) => body));
  expect([...held.values()].filter((body) => !copies.has(body))).toEqual([]);
  await second.kill();
  await images.unmount(folder);
}
