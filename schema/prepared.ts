/**
 * The prepared data folder: an embedded database with every migration applied, as a compressed
 * archive beside this file. Opening it takes a quarter of the time of making one anew, and of the
 * memory. `prepare.ts` makes it; a test holds it to the migrations.
 */

/** Where the archive is: a tar, compressed by Zstandard. */
export const preparedPath = `${import.meta.dir}/prepared.tar.zst`;

/**
 * Unpacks it into a folder, off this thread. Nothing of it is synced: unpack beside the place
 * and rename, so that a crash leaves no half of it there. @throws Error the disk's own words; the
 * folder may hold some of it.
 */
export async function unpackPrepared(folder: string): Promise<void> {
  const tar = await Bun.zstdDecompress(await Bun.file(preparedPath).bytes());
  try {
    await new Bun.Archive(tar).extract(folder);
  } catch (error) {
    // It only says "ReadError"; a write of the same bytes says why.
    await Bun.write(`${folder}/unpacking`, tar);
    throw error;
  }
}
