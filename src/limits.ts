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
/** So many small groups without a pause, and their segment is filled with zeros ahead. Count. */
export const fillAheadGroups = 64;
/** A larger group gains less from zeros than writing them costs. Bytes. */
export const fillAheadGroupBytes = 16 * KIB;
/** Zeros written at a time: some hundred groups of room, and 1 ms of the disk. Bytes. */
export const fillAheadBytes = MIB;
/** The quiet time after the last sync before a mark records the synced end. Milliseconds. */
export const markDelayMs = 50;
/** One read from a segment file. Bytes. */
export const readChunkBytes = 256 * KIB;
/** Chunks of one partition that are read at a time; more readers wait their turn. Count. */
export const chunkReadsMax = 8;
/** How far apart the sparse index's places in a segment are. Bytes. */
export const indexStrideBytes = 32 * KIB;
/** A partition's newest groups, decoded once for its readers; unused memory counts. Bytes. */
export const tailBytesMax = 2 * MIB;
/** The same of all partitions together: many streams are written to, few are read at their end. */
export const tailsBytesMax = 64 * MIB;
/** The least buffer that a commit group is encoded into. Bytes. */
export const groupBufferBytesMin = 4 * KIB;
/** The largest buffer that is kept for another group: larger ones are rare. Bytes. */
export const pooledBufferBytesMax = 1 * MIB;
/** Buffers that one partition keeps while it is written to; none once it is quiet. Bytes. */
export const poolBytesMax = 2 * MIB;
/** Sealed segments and key files that are open for readers, of the whole log. Count. */
export const openFilesMax = 64;
/** Dedupe keys of one segment, held in memory until it is sealed. Count. */
export const segmentKeysMax = 256 * 1024;
/**
 * Slots of one page of the filter over sealed segments' keys, 4 bytes each: pages begin small and
 * grow with the keys, so that a look at all of them stays short. Count, powers of two.
 */
export const filterSlotsMin = 4096;
export const filterSlotsMax = 2 ** 21;
/** The share of a page's slots that is filled: 43 bits of memory a key. */
export const filterFillMax = 0.75;
/** How often old segments are looked for. Milliseconds. */
export const retentionTickMs = 10_000;
/** The least age at which a segment is rolled for time, so that minutes mean minutes. Ms. */
export const segmentAgeMinMs = 10_000;
/** The least parts that a stream is sealed in whose bytes are kept until they are routed. Count. */
export const fullSegmentsMin = 8;

/** How long states gather before they are appended and synced together. Milliseconds. */
export const stateTickMs = 50;
/** One state record: progress of one route on one partition. Bytes. */
export const stateBytesMax = 4 * KIB;
/** The log of states at which a snapshot replaces it. Bytes. */
export const stateLogBytesMax = 8 * MIB;

/** How long a lock's dying owner is waited for. Milliseconds. */
export const lockWaitMs = 3000;
/** How often a backup lists a partition anew whose segments go meanwhile. Count. */
export const backupListsMax = 20;

/** Messages that a route takes, renders and sends together. Count. */
export const routeBatchMessages = 1000;
/** The same in bytes. */
export const routeBatchBytes = 1 * MIB;
/** Bodies that a source may hold unsettled. Bytes. */
export const unsettledBytesMax = 16 * MIB;
/** Deliveries of one source whose append is under way. Count. */
export const ingestInFlight = 64;
/** Sends of one route under way at the same time: what a slow target's answers may overlap. Count. */
export const lanesMax = 64;
/** Messages that the lanes of one route hold in memory, and their bytes. */
export const laneMessagesMax = 4096;
export const laneBytesMax = 16 * MIB;
/** Messages in one call of a target that takes many at once. Count. */
export const laneCallMessages = 500;
/** How far finished messages may lie above the first unfinished one: bits of a record. Offsets. */
export const windowOffsetsMax = 5120;
/** Messages whose failures a state record remembers. Count. */
export const troublesSavedMax = 16;
/** A wait longer than this is spent in the route's stream of waiting messages. Milliseconds. */
export const waitAfterMs = 5000;
/** Keys of one route that wait; beyond them the route takes nothing more. Count. */
export const waitKeysMax = 1000;
/** Messages of one route that wait: a number in memory for each. Count. */
export const waitMessagesMax = 500_000;
/** Waiting messages of one route that are in memory to be sent, and the bytes of one load. */
export const waitLoadedMax = 64;
export const waitLoadBytes = 256 * KIB;
/** Finished waiting messages that a state record names before they are noted in the stream. */
export const waitFinishesNoted = 64;
/** The same while a note is on its way: beyond it no more are sent. Count. */
export const waitFinishesMax = 96;
/** The longest single sleep: timers count in 31 bits. Milliseconds. */
export const sleepMsMax = 3_600_000;
/** Revisions of one rule that a route may still have work for. Count. */
export const boundariesMax = 24;
/** A reason kept in a dead letter: 4 KiB of a target's answer and words around it. Characters. */
export const reasonLengthMax = 4 * KIB + 200;
/** Messages that `each` makes of one: they stand in memory together, and in one group. Count. */
export const eachItemsMax = 10_000;
/** The bodies of all of them. Bytes. */
export const eachBytesMax = 16 * MIB;
/** Streams and bridges that one message may pass before it counts as a loop. Count. */
export const hopsMax = 32;
/** The header that tells them to another gateway: headers of HTTP are rarely taken longer. Bytes. */
export const hopsHeaderBytesMax = 16 * KIB;

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
/** When a rule whose changes are too far ahead of its targets may be changed again. Ms. */
export const ruleChangeRetryMs = 5_000;
/** Partitions of one stream: each is a folder and a few open files. Count. */
export const partitionsMax = 1024;

assert(bodyBytesMax < recordBytesMax, "a record holds a body and the rest");
assert(recordBytesMax < groupBytesMax, "a group holds the largest record");
assert(batchBytesTarget < readChunkBytes, "a usual batch is read in one read");
assert(groupBytesMax <= segmentBytesMax, "a segment holds a whole group");
assert(routeBatchMessages < windowOffsetsMax, "a window holds a whole batch");
assert(windowOffsetsMax / 6 + 1500 < stateBytesMax, "a record holds a full window and the rest");
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
/** One step of reading for a client: messages, bytes; and steps in a turn of the event loop. */
export const readStepMessages = 256;
export const readStepBytes = 64 * KIB;
export const readStepsOfTurn = 1;
/** Server-Sent Events: a comment keeps proxies from closing. Milliseconds. */
export const eventsPingMs = 15_000;
/** How long a client of events waits before it comes back; each adds its own spread. Ms. */
export const eventsRetryMs = 2000;
/** How long a reader's progress without a message may stay untold. Milliseconds. */
export const cursorTellMs = 4500;

/** One frame from a client: a whole body, or most of one as base64. Bytes. */
export const socketFrameBytesMax = 17 * MIB;
/** What Bun buffers for one socket: never reached, a sender stops at the first refusal. Bytes. */
export const socketBufferBytesMax = 128 * MIB;
/** Text gathered into one write to a socket. Characters. */
export const socketWriteCharsMax = 32 * KIB;
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
/** Webhooks of all hooks under way when no setting says otherwise. Count. */
export const hooksConcurrencyDefault = 10_000;
/** Bodies of all hooks in memory when no setting says otherwise. Bytes. */
export const hooksMemoryBytesDefault = 256 * MIB;
/** How long a body may be slow before its pace is looked at. Milliseconds. */
export const hookBodyGraceMs = 10_000;
/** How often bodies that have not arrived are looked at. Milliseconds. */
export const hookBodyTickMs = 1000;
/**
 * Bodies of webhooks announced up to here, nearly all, are read in one call and count whole from
 * their announcement: as many as may be under way have to fit into the memory for bodies, or who
 * only announces would keep out who sends. Bytes.
 */
export const hookShortBodyBytesMax = 16 * KIB;
/** The least pace of a body when its hook says none: slower than any network in use. Bytes/s. */
export const hookBodyBytesPerSecond = 512;
/** How much larger a gzip body may become: beyond it, it is a bomb and not a text. Factor. */
export const hookInflateRatioMax = 200;
/** What any gzip body may become, whatever its ratio. Bytes. */
export const hookInflateBytesMin = 64 * KIB;

assert(
  hookShortBodyBytesMax * hooksConcurrencyDefault <= hooksMemoryBytesDefault,
  "short bodies that never come leave room for others",
);
/** Media types that a hook lists, and headers that it does not keep. Count. */
export const hookListMax = 50;
/** Names on the way to a member that is echoed. Count. */
export const hookEchoDepthMax = 8;
/** Origins of one hook that are kept: senders call from few addresses. Count. */
export const hookOriginsMax = 256;
/** How often the last use of a hook's keys is kept: it may be older by this after a crash. Ms. */
export const hookKeysSavedMs = 60_000;
/** CIDRs of trusted proxies, and addresses of one request that are walked. Count. */
export const proxiesMax = 1000;
export const proxyHopsMax = 32;
/** Addresses of peers that are remembered as they are written. Count. */
export const peersKnownMax = 1024;

/** A JSON Web Token: it has to fit into a header beside others. Characters. */
export const jwtCharsMax = 8192;
/** Keys, issuers or audiences that one document of tokens counts. Count. */
export const jwtKeysMax = 32;
/** How far the clock of a token's maker may be from ours, at most. Milliseconds. */
export const jwtLeewayMsMax = 300_000;
/** A shared secret of HS256, as RFC 7518 asks. Bytes. */
export const jwtSecretBytesMin = 32;
/** How long keys that could not be read are not read again. Milliseconds. */
export const jwtKeysRetryMs = 5000;
/** The age at which a JWKS is fetched again, while the keys at hand go on to count. Ms. */
export const jwksAgeMsMax = 600_000;
/** How long keys count while their server is away; no token of its users is newer. Ms. */
export const jwksStaleMsMax = 24 * 3_600_000;
/** The least time between two fetches: tokens with made-up key ids must not cause more. Ms. */
export const jwksCooldownMs = 5000;
/** How long one fetch may take. Milliseconds. */
export const jwksFetchMsMax = 5000;
/** A JWKS with a few dozen keys and their certificates. Bytes. */
export const jwksBytesMax = 256 * KIB;
/** Grants of one token or access, each way: all of a stream's are looked at for a call. Count. */
export const grantsMax = 100;
/** How long a proven JWT is not proven again, so that a key taken back counts soon. Ms. */
export const jwtProofMsMax = 60_000;
/** Proven tokens that are remembered, the oldest forgotten first. Count. */
export const jwtProofsMax = 10_000;

/** How long a ticket can be used: the page that asked for it opens its connection at once. Ms. */
export const ticketMsMax = 30_000;
/** Tickets not used yet, of all callers and of one. Count. */
export const ticketsMax = 10_000;
export const ticketsOfOneMax = 100;
/** Origins whose pages may call. Count. */
export const originsMax = 100;
/** How long browsers remember what a preflight allowed. Seconds. */
export const preflightAgeS = 600;
/** Sockets from one address, and of one caller, unless a setting says less. Count. */
export const socketsOfAddressMax = 20_000;
export const socketsOfCallerMax = 20_000;
/** Subscriptions of all connections of one caller. Count. */
export const subscriptionsOfCallerMax = 50_000;
/** Addresses and callers that are counted; those that are idle are forgotten. Count. */
export const countedClientsMax = 100_000;
/** Callers whose tokens are checked, and subscriptions that are begun, at a time. Count. */
export const admissionsMax = 16;
/** Sockets that have not said who they are. Count. */
export const socketsUnknownMax = 10_000;
/** How far apart clients come back: so long for each socket, at least and at most. Ms. */
export const spreadOfSocketMs = 2;
export const spreadMsMin = 1000;
export const spreadMsMax = 60_000;
/** How often durable names that nobody uses are looked for. Milliseconds. */
export const nameSweepMs = 3_600_000;
/** Messages or bytes of a client in its unit of time, at most. Count. */
export const clientRateMax = 100_000_000;
/** How long a client that meets a full count waits before it comes again. Milliseconds. */
export const limitedRetryMs = 5000;

/** What a dead letter says of where its message came from; a longer one is left out. Characters. */
export const originTextMax = 4096;
/** Jobs that send again, under way and in all: those of a busy week. Count. */
export const jobsRunningMax = 8;
export const jobsKeptMax = 100;
/** Messages that a job hands to routes at a time: each time costs two syncs and a tick. Count. */
export const jobBatchMessages = 1000;
/** How long a job waits for a route that has no room. Milliseconds. */
export const jobRetryMs = 250;
/** How often a job with a rate hands messages over, so that the rate is even. Milliseconds. */
export const jobTurnMs = 250;
/** Messages that a job may send in its unit of time, at most. Count. */
export const jobRateMax = 1_000_000;
/** Dead letters whose fate stands in one state record: two sets of bits. Count. */
export const lettersPerRecord = 4096;
/** Messages that one look through dead letters or a dry run goes over. Count. */
export const surveyMessagesMax = 100_000;
/** Messages that a dry run shows. Count. */
export const surveySamplesMax = 20;

/** How long the test of a bridge waits for its connection, and for each place. Milliseconds. */
export const bridgeTestMsMax = 10_000;
/** Places that one test of a bridge looks at. Count. */
export const bridgeTestPlacesMax = 100;

/** Offsets of a partition whose journeys are noted under one key of the index. Count. */
export const journeyBucketOffsets = 256;
/** Notes in memory between two saves of state, 50 ms apart; more are counted as lost. Count. */
export const journeyPendingMax = 100_000;
/** Failures of one message that are each noted; later ones at powers of two. Count. */
export const journeyFailuresFull = 16;
/** Records that one look at a journey reads. Count. */
export const journeyReadMax = 50_000;
/** How far clocks may have gone back between a message's append and its notes. Milliseconds. */
export const journeySkewMs = 60_000;
/** What `$journey` keeps: as long as a stream by default, and some 20 million deliveries. */
export const journeyAgeMs = 7 * 24 * 3_600_000;
export const journeyBytes = 1024 ** 3;
/** What `$audit` keeps: a year of changes, and more than people make. */
export const auditAgeMs = 366 * 24 * 3_600_000;
export const auditBytes = 1024 ** 3;
/** Where a message is looked for by the time in its id: before it, and after. Milliseconds. */
export const journeyIdBeforeMs = 5000;
export const journeyIdAfterMs = 60_000;
/** Messages that a look for an id goes over, and how long it takes. Count, milliseconds. */
export const journeySearchMessages = 500_000;
export const journeySearchMsMax = 5000;
/** Of an id without a time, the newest messages of each partition that are looked at. Count. */
export const journeySearchNewest = 100_000;
/** Places of one id that are told: the streams that it was passed on to. Count. */
export const journeysMax = 20;
