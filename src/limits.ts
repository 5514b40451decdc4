/**
 * Every bound of the system, with its unit and its reason. At a bound the caller waits or gets a
 * LimitError; nothing is dropped. Relations between bounds are asserted at the end.
 */
import { assert } from "./assert.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** A message's id: receivers store it, so it stays small. Bytes of UTF-8. */
export const idBytesMax = 128;
/** A dedupe key, such as an Idempotency-Key. Bytes of UTF-8. */
export const dedupeKeyBytesMax = 1024;
/** A message's key, as Kafka's clients commonly bound it. Bytes. */
export const keyBytesMax = 64 * KIB;
/** A body: larger files belong into an object store. Bytes. */
export const bodyBytesMax = 16 * MIB;
/** All headers of a message together. Bytes, encoded. */
export const headersBytesMax = 256 * KIB;
/** Headers of one message. Count. */
export const headersCountMax = 1000;
/** A whole record on disk: body, headers, key and the rest. Bytes. */
export const recordBytesMax = bodyBytesMax + 1 * MIB;

/** The payload at which a batch is closed and the next begun; one message may be larger. Bytes. */
export const batchBytesTarget = 64 * KIB;
/** What may wait for a partition's disk before appends are refused for now. Bytes. */
export const groupBytesMax = 64 * MIB;
/** How long a refused append should wait before it comes again. Milliseconds. */
export const groupRetryAfterMs = 1000;
/** The size at which a segment is sealed: retention deletes whole segments. Bytes. */
export const segmentBytesMax = 64 * MIB;
/** The quiet time after the last sync before a mark records the synced end. Milliseconds. */
export const markDelayMs = 50;
/** One read from a segment file. Bytes. */
export const readChunkBytes = 256 * KIB;
/** How far apart the sparse index's places in a segment are. Bytes. */
export const indexStrideBytes = 32 * KIB;
/** The newest decoded batches of one partition that readers at its end share. Bytes. */
export const tailBytesMax = 1 * MIB;
/** How often old segments are looked for. Milliseconds. */
export const retentionTickMs = 10_000;
/** The least age at which a segment is rolled for time, so that minutes mean minutes. Ms. */
export const segmentAgeMinMs = 10_000;

/** How long states gather before they are appended and synced together. Milliseconds. */
export const stateTickMs = 50;
/** One state record: progress of one route on one partition. Bytes. */
export const stateBytesMax = 4 * KIB;
/** The log of states at which a snapshot replaces it. Bytes. */
export const stateLogBytesMax = 8 * MIB;

/** How long a lock's dying owner is waited for. Milliseconds. */
export const lockWaitMs = 3000;

/** Messages that a route takes, renders and sends together. Count. */
export const routeBatchMessages = 1000;
/** The same in bytes. */
export const routeBatchBytes = 1 * MIB;
/** Bodies that a source may hold unsettled. Bytes. */
export const unsettledBytesMax = 16 * MIB;
/** Deliveries of one source whose append is under way. Count. */
export const ingestInFlight = 64;
/** Revisions of one rule that a route may still have work for. Count. */
export const boundariesMax = 24;
/** A reason kept in a dead letter. Characters. */
export const reasonLengthMax = 2000;
/** Streams and bridges that one message may pass before it counts as a loop. Count. */
export const hopsMax = 32;

/** The first wait before a bridge is connected again, and the longest. Milliseconds. */
export const reconnectDelayMinMs = 500;
export const reconnectDelayMaxMs = 30_000;
/** How long a bridge may take to connect, a source or sink to open. Milliseconds. */
export const connectTimeoutMs = 15_000;
/** How long a stop waits for work under way. Milliseconds. */
export const stopTimeoutMs = 10_000;

/** Levels of lists and maps in JSON: deeper text never reaches recursive code. Count. */
export const jsonDepthMax = 128;
/** Digits of one whole number in JSON: reading more takes quadratic time. Count. */
export const wholeNumberDigitsMax = 1000;
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
/** One template's text, its expressions included. Characters. */
export const templateCharsMax = 64 * KIB;
/** Levels of lists and maps in a definition. Count. */
export const documentDepthMax = 32;
/** Lists, maps and values in one definition. Count. */
export const documentNodesMax = 20_000;
/** A definitions file. Characters. */
export const definitionsCharsMax = 4 * MIB;
/** Partitions of one stream: each is a folder and a few open files. Count. */
export const partitionsMax = 1024;
/** Targets of one rule. Count. */
export const targetsMax = 100;

assert(bodyBytesMax < recordBytesMax, "a record holds a body and the rest");
assert(recordBytesMax < groupBytesMax, "a group holds the largest record");
assert(batchBytesTarget < readChunkBytes, "a usual batch is read in one read");
assert(groupBytesMax <= segmentBytesMax, "a segment holds a whole group");
assert(routeBatchBytes <= unsettledBytesMax, "a route's batch is no larger than a source's bound");

/** A request's body of many messages; a group holds it beside what waits already. Bytes. */
export const batchRequestBytesMax = 32 * MIB;
/** Bodies announced up to here are read in one call; longer ones in parts, each with new time. */
export const shortBodyBytesMax = 64 * KIB;
/**
 * What Bun itself would refuse without a problem document: out of reach, the bounds above count.
 */
export const serverBodyBytesMax = 2 ** 40;
/** How long a connection may stand still: headers, a short body, between requests. Seconds. */
export const idleTimeoutS = 60;
/** Lines of one NDJSON request, and events of one CloudEvents batch. Count. */
export const batchMessagesMax = 10_000;
/** Problems told of one request: enough to correct many lines at once. Count. */
export const problemsMax = 20;
/** An Idempotency-Key, or the id of a socket's publish. Characters. */
export const idempotencyKeyCharsMax = 255;

/** Messages of one read, at most and when none is said. Count. */
export const readMessagesMax = 10_000;
export const readMessagesDefault = 100;
/** The bodies of one read's answer; one message may be larger. Bytes. */
export const readBytesMax = 8 * MIB;
/** How long a read waits for its first message. Milliseconds. */
export const readWaitMsMax = 60_000;
/** How long a filtered read looks at messages before it answers with what it has. Milliseconds. */
export const readScanMsMax = 2000;
/** Messages taken from the log in one step for a client, and their bytes. */
export const readStepMessages = 256;
export const readStepBytes = 64 * KIB;
/** Server-Sent Events: a comment keeps proxies from closing. Milliseconds. */
export const eventsPingMs = 15_000;
/** How long a reader's progress without a message may stay untold. Milliseconds. */
export const cursorTellMs = 4500;

/** One frame from a client: a whole body, or most of one as base64. Bytes. */
export const socketFrameBytesMax = 17 * MIB;
/**
 * What Bun buffers for one socket: never reached, for a sender stops at the first refusal. Bytes.
 */
export const socketBufferBytesMax = 128 * MIB;
/** Answers that a client does not read while it sends more. Bytes. */
export const socketUnreadBytesMax = 1 * MIB;
/** Frames that wait because an earlier one takes time, and their bytes. */
export const socketWaitingFramesMax = 100_000;
export const socketWaitingBytesMax = 2 * socketFrameBytesMax;
/** Publishes of one socket on their way to the disk. Count. */
export const socketPublishesMax = 1000;
/** Subscriptions of one socket, and sockets of one process. Count. */
export const socketSubscriptionsMax = 100;
export const socketsMax = 50_000;
/** Time to say who one is. Milliseconds. */
export const socketAuthMs = 5000;
/** How often clients should ping; what the server itself sends needs no answer from them. Ms. */
export const socketPingMs = 25_000;
/** How often sockets are looked at: deadlines, revoked tokens, progress. Milliseconds. */
export const socketTickMs = 500;
/** A client's name for a subscription or a publish. Characters. */
export const socketRefCharsMax = 200;
/** Unacked messages of a named subscription, when none is said and at most. Count. */
export const windowDefault = 256;
export const windowMax = 10_000;
/** How long the server keeps a durable name that nobody uses. Milliseconds. */
export const nameUnusedMsMax = 30 * 24 * 3_600_000;
/** How often a name in use says so in its state. Milliseconds. */
export const nameTouchMs = 3_600_000;
/** Definitions in one page of a list. Count. */
export const listItemsMax = 1000;

assert(
  batchRequestBytesMax <= groupBytesMax / 2,
  "a group takes a whole request beside half of it",
);

/** Keys of one hook that count at the same time: each costs a MAC for a bad signature. Count. */
export const hookSecretsMax = 8;
/** Signatures in one header that are looked at. Count. */
export const hookSignaturesMax = 16;
/** A header that takes part in a signature. Characters. */
export const hookHeaderCharsMax = 4096;
/** Parameters of a form whose signature is over all of them. Count. */
export const hookFormFieldsMax = 1000;
/** Webhooks of one hook in its unit of time, at most. Count. */
export const hookRateMax = 100_000_000;
/** Webhooks of one hook under way, at most. Count. */
export const hookConcurrencyMax = 100_000;
/** How long a hook whose keys can't be read waits before it tries again. Milliseconds. */
export const hookKeysRetryMs = 5000;
/** A challenge that is given back: senders use tokens. Characters. */
export const hookChallengeCharsMax = 1000;
