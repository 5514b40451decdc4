/**
 * The bounds of definitions, expressions and previews, each with its unit and its reason, as
 * src/limits.ts has those of everything else. At a bound the author is told; nothing is cut off.
 */
const KIB = 1024;
const MIB = 1024 * KIB;

/** Names longer than this get no suggestion: the work grows with the product of lengths. */
export const suggestCharsMax = 64;
/** The text of one CEL expression. Characters. */
export const expressionCharsMax = 4096;
/** Nodes of one expression's tree; the closures of a rule stay small. Count. */
export const expressionNodesMax = 2000;
/** Nesting of one expression: parser and compiler are recursive. Count. */
export const expressionDepthMax = 64;
/**
 * What one evaluation may do, in steps of roughly 20 ns: nested macros over big lists stop here.
 */
export const expressionStepsMax = 1_000_000;
/** A text or byte string that an expression makes. Characters or bytes. */
export const expressionTextMax = 16 * MIB;
/** The bits of a whole number that an expression makes. Count. */
export const wholeNumberBitsMax = 4096;
/** The text of one regular expression. Characters. */
export const patternCharsMax = 1000;
/** Instructions of one compiled regular expression: its time for a character. Count. */
export const patternSizeMax = 2000;
/** Compiled patterns that expressions made from messages share; the oldest goes first. Count. */
export const patternCacheMax = 200;
/** Cells of the table that compares lines: beyond it a part is shown as replaced. Count. */
export const diffCellsMax = 1_000_000;
/** A body shown in a sample or an explanation. Bytes. */
export const shownBodyCharsMax = 4 * KIB;
/** One value or part of an expression in an explanation. Characters. */
export const explainedValueCharsMax = 200;
/** Messages that a preview looks at, when none is said and at most. Count. */
export const previewMessagesDefault = 100_000;
export const previewMessagesMax = 10_000_000;
/** Samples of each kind in a preview. Count. */
export const previewSamplesMax = 10;
/** Kinds of losses that a preview counts for each target. Count. */
export const previewLossesMax = 50;
/** The share of one core that all previews together take: deliveries go on nearly as before. */
export const previewShare = 0.1;
/** How long a preview works before it rests. Milliseconds. */
export const previewSliceMs = 3;
/** Messages of one step of a preview, and their bytes: both bound what a slice may take. */
export const previewStepMessages = 64;
export const previewStepBytes = 64 * KIB;
/** How often a preview tells how far it has come. Milliseconds. */
export const previewTellMs = 250;
/** Revisions in one page of a definition's history. Count. */
export const revisionItemsMax = 200;
/** Tests of rules in one file. Count. */
export const ruleTestsMax = 10_000;
/** Rules that one explanation looks at. Count. */
export const explanationsMax = 1000;
/** Previews of one process at once. Count. */
export const previewsMax = 2;
/** Rules of one dry run that are previewed, and the messages of each. Count. */
export const dryRunPreviewsMax = 20;
export const dryRunMessagesMax = 10_000;
/** Time zones that expressions have asked for; each format holds tables of its own. Count. */
export const timeZonesMax = 100;
/** Conditions whose compiled forms rules share by their text; the oldest goes first. Count. */
export const conditionsMax = 4096;
/** One template's text, its expressions included. Characters. */
export const templateCharsMax = 64 * KIB;
/** Levels of lists and maps in a definition. Count. */
export const documentDepthMax = 32;
/** Lists, maps and values in one definition. Count. */
export const documentNodesMax = 20_000;
/** A definitions file. Characters. */
export const definitionsCharsMax = 4 * MIB;
/** Targets of one rule. Count. */
export const targetsMax = 100;
/** The most that `limit` may let through in its time. Count. */
export const targetRateMax = 100_000_000;
/** The most that `concurrency` may let be under way at one target. Count. */
export const targetConcurrencyMax = 10_000;
/** Messages of one batch: what a route reads at once. Count. */
export const targetBatchMessagesMax = 1000;
/** Their bodies: what the lanes of one route may hold. Bytes. */
export const targetBatchBytesMax = 16 * MIB;
/** The longest that a batch may wait for messages. Milliseconds. */
export const batchWaitMsMax = 60_000;
/** Messages that fail one after another, none sent between, before a target is left alone. Count. */
export const circuitFailures = 10;
/** Parts that the time of a limit is counted in. Count. */
export const limitParts = 100;
