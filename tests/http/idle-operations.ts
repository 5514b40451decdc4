/** Operations over no routes: for servers of tests on which no rule runs. */
import { bridgeModules } from "../../bridges/registry.ts";
import { systemClock } from "../../src/clock.ts";
import type { States } from "../../src/log/log.ts";
import type { Streams } from "../../src/log/stream.ts";
import { Operations } from "../../src/routing/operations.ts";
import { Routes } from "../../src/routing/routes.ts";

/** Operations that find no rule. */
export function idleOperations(streams: Streams, states: States): Operations {
  const nothing = (): void => undefined;
  const shared = { streams, states, clock: systemClock, random: () => 0 };
  const routes = new Routes({
    ...shared,
    modules: bridgeModules,
    connection: () => undefined,
    revision: () => null,
    events: () => ({
      onFinished: nothing,
      onRetry: nothing,
      onLost: nothing,
      onGap: nothing,
      warn: nothing,
    }),
  });
  return new Operations({
    ...shared,
    routes,
    store: { current: () => ({ rules: new Map() }) },
    exclusively: (work) => work(),
    events: { info: nothing, warn: nothing },
  });
}
