/** How much of the long behaviours runs: all of it with `npm run test:full`, else a seeded sample. */

export const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";

/** Replay with ISTHMUS_TEST_SEED. */
export const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
