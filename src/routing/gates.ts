/** The gates of all targets: one for each target of a rule, whatever partitions it is sent from. */
import type { Clock } from "../clock.ts";
import { assert } from "../assert.ts";
import type { States } from "../log/log.ts";
import type { TargetLoad } from "../rules/load.ts";
import { type AskedBy, DisabledRecord } from "./disabled.ts";
import { Gate } from "./gate.ts";
import { disabledKey } from "./route-names.ts";

/** What gates work with. */
export interface GatesParts {
  readonly states: States;
  readonly clock: Clock;
  readonly random: () => number;
  readonly warn: (rule: string, target: string) => (sentence: string) => void;
}

/** A target that is sent to. */
export interface GateOf {
  readonly rule: string;
  readonly target: string;
  readonly load: TargetLoad;
  readonly asked: AskedBy;
}

/** The gates of a process. One caller at a time changes them. */
export class Gates {
  readonly #parts: GatesParts;
  readonly #gates = new Map<string, { readonly gate: Gate; readonly disabled: DisabledRecord }>();

  constructor(parts: GatesParts) {
    this.#parts = parts;
  }

  /** The gate of a target that was defined. */
  of(rule: string, target: string): Gate {
    const found = this.#gates.get(disabledKey(rule, target));
    assert(found !== undefined, "a target has a gate before it has routes");
    return found.gate;
  }

  /**
   * Makes these the targets that there are; others have no routes any more. One whose rule or
   * bridge is another revision is asked again, whatever it said. @throws StorageError
   */
  async define(targets: readonly GateOf[]): Promise<void> {
    const wanted = new Map(
      targets.map((each) => [disabledKey(each.rule, each.target), each] as const),
    );
    for (const [key, { gate, disabled }] of this.#gates) {
      if (wanted.has(key)) continue;
      this.#gates.delete(key);
      await gate.close();
      await disabled.clear();
    }
    await Promise.all([...wanted].map(([key, target]) => this.#define(key, target)));
  }

  /** Ends their waits, when all routes have ended. */
  async close(): Promise<void> {
    const gates = [...this.#gates.values()];
    this.#gates.clear();
    await Promise.all(gates.map(({ gate }) => gate.close()));
  }

  async #define(key: string, { rule, target, load, asked }: GateOf): Promise<void> {
    const { states, clock, random, warn } = this.#parts;
    const known = this.#gates.get(key);
    if (known !== undefined) {
      known.gate.load = load;
      if (await known.disabled.askedBy(asked)) await known.gate.enable();
      return;
    }
    const disabled = await DisabledRecord.load(states, key, asked);
    const gate = new Gate({ clock, random, disabled, warn: warn(rule, target) });
    gate.load = load;
    this.#gates.set(key, { gate, disabled });
  }
}
