/**
 * The prepared data folder: an embedded database with every migration applied, as a compressed
 * archive beside this file. Opening it takes a quarter of the time of making one anew, and of the
 * memory. `prepare.ts` makes it; a test holds it to the migrations.
 */

/** Where the archive is: a tar, compressed by Zstandard. */
export const preparedPath = `${import.meta.dir}/prepared.tar.zst`;

/**
 * Unpacks it into a folder, off this thread. Nothing of it is synced: unpack beside the place
 * and rename, so that a crash leaves no half of it there.
 */
export async function unpackPrepared(folder: string): Promise<void> {
  const tar = await Bun.zstdDecompress(await Bun.file(preparedPath).bytes());
  await new Bun.Archive(tar).extract(folder);
}
