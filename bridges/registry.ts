/**
 * Kind → module, with every alias: the one line that a new bridge adds.
 * The modules' files hold no more than documents and capabilities; each loads its client library
 * by a dynamic import inside `connect`, so that a start without such a bridge does not pay for it.
 */
import type { BridgeModule } from "../src/bridge.ts";
import { amqp } from "./amqp/module.ts";
import { amqp1 } from "./amqp1/module.ts";
import { http } from "./http/module.ts";
import { kafka } from "./kafka/module.ts";
import { mqtt } from "./mqtt/module.ts";

const modules: readonly BridgeModule[] = [kafka, amqp, amqp1, mqtt, http];

/** Every kind and alias that a definition may name. */
export const bridgeModules: ReadonlyMap<string, BridgeModule> = new Map(
  modules.flatMap((module) =>
    [module.kind, ...(module.aliases ?? [])].map((name) => [name, module] as const),
  ),
);
