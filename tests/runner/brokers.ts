/**
 * The brokers that all tests of a run share: got once, told to the test files by the environment.
 * One that can't be had is told as the reason for skipping; where CI=true it is a failed test.
 */
import {
  type Broker,
  type BrokerKind,
  brokerKinds,
  brokerPrograms,
  missingVariable,
  privateBroker,
  urlFromEnvironment,
  urlVariable,
} from "../brokers/broker.ts";
import { ensurePrograms, type ProgramName, UnavailableError } from "../brokers/programs.ts";
import { qpidJmsClassPath, qpidJmsPrograms } from "../brokers/qpid-jms.ts";
import type { Print } from "./files.ts";
import { addResults, type Result, singleResult } from "./report.ts";

/** Other programs that tests run: clients that are not ours, and a look at system calls. */
const tools: readonly ProgramName[] = ["chromium", "kcat", "mosquitto_pub", "strace"];

/** Brokers that are up, and what the test files have to know of them. */
export interface SharedBrokers {
  readonly env: Readonly<Record<string, string>>;
  readonly result: Result;
  /** One line about each, to be printed when its turn has come. */
  readonly lines: readonly string[];
  stop(): Promise<void>;
}

interface Got {
  readonly env: Readonly<Record<string, string>>;
  readonly result: Result;
  readonly line: string;
  readonly broker: Broker | null;
}

const nothing: Result = { passed: 0, failed: 0, skipped: [] };

/**
 * Gets the kinds at the same time. With `databaseOnly` the tests that need a broker are skipped,
 * unless the environment names one, and nothing is installed for them.
 */
export async function getBrokers(options: {
  readonly databaseOnly: boolean;
  readonly print: Print;
}): Promise<SharedBrokers> {
  const { databaseOnly, print } = options;
  const mayStart = (kind: BrokerKind): boolean => !databaseOnly || kind === "postgres";
  const wanted = brokerKinds.filter((kind) => mayStart(kind) && urlFromEnvironment(kind) === null);
  const clients = databaseOnly ? [] : [...tools, ...qpidJmsPrograms()];
  const programs = [...wanted.flatMap(brokerPrograms), ...clients];
  // In one go, which is quicker.
  const toolsResult = await orTell(() => ensurePrograms(programs), print);
  const [jarsResult, all] = await Promise.all([
    databaseOnly ? nothing : orTell(qpidJmsClassPath, print),
    Promise.all(brokerKinds.map((kind) => (mayStart(kind) ? getBroker(kind) : leaveOut(kind)))),
  ]);
  return {
    env: Object.assign({}, ...all.map((each) => each.env)) as Record<string, string>,
    result: addResults([toolsResult, jarsResult, ...all.map((each) => each.result)]),
    lines: all.map((each) => each.line),
    stop: async () => {
      await Promise.all(all.flatMap((each) => each.broker ?? []).map((broker) => broker.stop()));
    },
  };
}

/** Gets what tests need; what is missing then is told by those who need it. */
async function orTell(get: () => Promise<unknown>, print: Print): Promise<Result> {
  try {
    await get();
    return nothing;
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error;
    print(`  ${error.message}`);
    return isCi() ? singleResult(false) : nothing;
  }
}

function leaveOut(kind: BrokerKind): Got {
  const given = urlFromEnvironment(kind) !== null;
  const env = given ? {} : { [missingVariable(kind)]: "a quick check starts no brokers" };
  return { env, result: nothing, line: `${kind}: ${given ? "given" : "left out"}`, broker: null };
}

async function getBroker(kind: BrokerKind): Promise<Got> {
  const given = urlFromEnvironment(kind);
  if (given !== null) {
    return { env: {}, result: nothing, line: `${kind}: given by the environment`, broker: null };
  }
  try {
    const broker = await privateBroker(kind);
    const line = `${kind}: ${broker.url}`;
    return { env: { [urlVariable(kind)]: broker.url }, result: nothing, line, broker };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const isFailure = isCi() || !(error instanceof UnavailableError);
    return {
      env: { [missingVariable(kind)]: reason.split("\n")[0] ?? reason },
      result: isFailure ? singleResult(false) : nothing,
      line: `${kind}: ${reason}`,
      broker: null,
    };
  }
}

function isCi(): boolean {
  return process.env["CI"] === "true";
}
