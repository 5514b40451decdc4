/**
 * The gate of one target: every call to it passes here, of all partitions that send to it. It keeps
 * to the target's limit and concurrency, leaves alone a target that is down, and lets nothing
 * through to one that is disabled. Those who wait get their turns one after another.
 */
import type { Outcome } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { type DisconnectedError, errorText } from "../errors.ts";
import { sleepMsMax } from "../limits.ts";
import { Circuit, type CircuitStatus, verdictOf } from "./circuit.ts";
import type { DisabledRecord } from "./disabled.ts";
import { RateWindow } from "./rate-window.ts";
import type { TargetLoad } from "../rules/load.ts";
import { Tasks } from "./tasks.ts";

/** What passes: a number of units, each a message, or a batch. */
export interface Permit {
  units: number;
  /** It asks a target that was left alone. */
  readonly isProbe: boolean;
}

/** What a gate works with. */
export interface GateParts {
  readonly clock: Clock;
  readonly random: () => number;
  readonly disabled: DisabledRecord;
  readonly warn: (sentence: string) => void;
}

/** How a target stands, and how much passes. */
export interface GateStatus extends CircuitStatus {
  /** Messages, or batches, that are under way. */
  readonly underWay: number;
  /** Since the process started: times that it was left alone, and that somebody had to wait. */
  readonly openings: number;
  readonly waits: number;
}

/** The gate of one target. */
export class Gate {
  readonly #parts: GateParts;
  readonly #circuit: Circuit;
  readonly #tasks: Tasks;
  /** In the order of their turns. */
  readonly #waiting = new Set<Seat>();
  readonly #stop = new AbortController();
  #load: TargetLoad = {};
  #window: RateWindow | null = null;
  #underWay = 0;
  /** Units that those who have been called may still take. */
  #called = 0;
  #waits = 0;
  #sleep: { readonly atMs: number; readonly ending: AbortController } | null = null;
  #isServing = false;

  constructor(parts: GateParts) {
    this.#parts = parts;
    this.#circuit = new Circuit(parts.random);
    this.#tasks = new Tasks((error) => parts.warn(errorText(error)));
  }

  get status(): GateStatus {
    const { disabled } = this.#parts;
    const { state, reason, untilMs, openings } = this.#circuit;
    const counts = { underWay: this.#underWay, openings, waits: this.#waits };
    if (disabled.reason !== null) {
      // Shown as disabled when a crash can't undo it; nothing passes before that either.
      const shown = disabled.isKept ? "disabled" : "open";
      return { state: shown, reason: disabled.reason, untilMs: null, ...counts };
    }
    if (state !== "open") return { state, reason, untilMs: null, ...counts };
    const { clock } = this.#parts;
    const leftMs = Math.max(0, untilMs - clock.monotonicMs());
    return { state, reason, untilMs: Math.round(clock.nowMs() + leftMs), ...counts };
  }

  /** What counts from now on. */
  set load(load: TargetLoad) {
    const { limit } = load;
    const known = this.#window?.rate;
    const isSame = limit?.count === known?.count && limit?.perMs === known?.perMs;
    if (!isSame) this.#window = limit === undefined ? null : new RateWindow(limit);
    this.#load = load;
    this.serve();
  }

  /** A place for one who sends; `call` is called when there may be room, and then takes or leaves. */
  seat(call: () => void): Seat {
    return new Seat(this, call);
  }

  /** Takes up to `wanted` units; null: there is no room, and the seat is called when there is. */
  take(seat: Seat, wanted: number): Permit | null {
    const isCalled = seat.isCalled;
    this.#uncall(seat);
    const mayPass = isCalled || this.#waiting.size === 0;
    const room = mayPass ? Math.min(wanted, this.#room()) : 0;
    if (room <= 0) {
      if (!this.#waiting.has(seat)) this.#waits++;
      this.#waiting.add(seat);
      this.serve();
      return null;
    }
    const isProbe = this.#circuit.state === "open";
    if (isProbe) this.#circuit.probe();
    const units = isProbe ? 1 : room;
    this.#underWay += units;
    this.#window?.take(units, this.#parts.clock.monotonicMs());
    if (this.#waiting.size > 0) this.#wakeLater();
    return { units, isProbe };
  }

  /** Units of a permit that are not used after all. */
  giveBack(permit: Permit, units: number): void {
    if (units <= 0) return;
    permit.units -= units;
    this.#underWay -= units;
    this.#window?.giveBack(units);
    this.serve();
  }

  /** A call is over, and says how the target stands. */
  leave(
    permit: Permit,
    sent: readonly Outcome[] | DisconnectedError | null,
    names: () => readonly string[],
  ): void {
    this.#underWay -= permit.units;
    permit.units = 0;
    const verdict = verdictOf(sent, names);
    this.#circuit.learn(verdict, permit.isProbe, this.#parts.clock.monotonicMs());
    this.serve();
  }

  /** A seat wants nothing for now. */
  withdraw(seat: Seat): void {
    this.#waiting.delete(seat);
    if (!seat.isCalled) return;
    this.#uncall(seat);
    this.serve();
  }

  /** The target has said that it wants nothing more: nothing passes until it is enabled. */
  disable(reason: string): void {
    if (this.#parts.disabled.reason !== null) return;
    this.#tasks.run(() => this.#parts.disabled.set(reason));
  }

  /** Asks it again, whatever it said; resolves when that is on disk. @throws StorageError */
  async enable(): Promise<void> {
    this.#circuit.reset();
    const cleared = this.#parts.disabled.clear();
    this.serve();
    await cleared;
  }

  /** Calls those whose turn has come. */
  serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    try {
      while (this.#waiting.size > 0 && this.#room() > this.#called) {
        const [seat] = this.#waiting;
        if (seat === undefined) break;
        this.#waiting.delete(seat);
        seat.isCalled = true;
        this.#called++;
        seat.call();
      }
    } finally {
      this.#isServing = false;
    }
    if (this.#waiting.size > 0) this.#wakeLater();
  }

  /** Ends its waits; resolves when what it saves is saved. Nobody has a seat any more. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#tasks.ended();
  }

  #uncall(seat: Seat): void {
    if (seat.isCalled) this.#called--;
    seat.isCalled = false;
  }

  /** How many units may pass now. */
  #room(): number {
    const { disabled, clock } = this.#parts;
    if (disabled.reason !== null) return 0;
    const { state, untilMs } = this.#circuit;
    if (state === "probing") return 0;
    if (state === "open" && clock.monotonicMs() < untilMs) return 0;
    const { concurrency } = this.#load;
    const free = concurrency === undefined ? Number.MAX_SAFE_INTEGER : concurrency - this.#underWay;
    const allowed = this.#window?.room(clock.monotonicMs()) ?? Number.MAX_SAFE_INTEGER;
    return Math.min(free, allowed, state === "open" ? 1 : Number.MAX_SAFE_INTEGER);
  }

  /** Looks again when time alone makes room. */
  #wakeLater(): void {
    const { clock, disabled } = this.#parts;
    const { state, untilMs } = this.#circuit;
    if (disabled.reason !== null || state === "probing" || this.#stop.signal.aborted) return;
    const steadyMs = clock.monotonicMs();
    const limitedMs = (this.#window?.roomAtMs(steadyMs) ?? steadyMs) - steadyMs;
    const restMs = state === "open" ? untilMs - steadyMs : 0;
    const ms = Math.min(Math.ceil(Math.max(limitedMs, restMs)), sleepMsMax);
    // What frees its room without time passing calls by itself.
    if (ms <= 0) return;
    const atMs = steadyMs + ms;
    if (this.#sleep !== null && this.#sleep.atMs <= atMs) return;
    this.#sleep?.ending.abort();
    const ending = new AbortController();
    const sleep = { atMs, ending };
    this.#sleep = sleep;
    this.#tasks.run(async () => {
      await clock.sleep(ms, AbortSignal.any([this.#stop.signal, ending.signal]));
      if (this.#sleep !== sleep) return;
      this.#sleep = null;
      this.serve();
    });
  }
}

/** The place of one who sends. Close it when nothing more is sent. */
export class Seat {
  readonly #gate: Gate;
  readonly #permits = new Set<Permit>();
  readonly call: () => void;
  /** Its turn has come. */
  isCalled = false;

  constructor(gate: Gate, call: () => void) {
    this.#gate = gate;
    this.call = call;
  }

  /** Up to `wanted` units, at least one; null: wait to be called, or withdraw. */
  take(wanted: number): Permit | null {
    const permit = this.#gate.take(this, wanted);
    if (permit !== null) this.#permits.add(permit);
    return permit;
  }

  giveBack(permit: Permit, units: number): void {
    this.#gate.giveBack(permit, units);
  }

  /** A call is over. `names` are those of its messages, asked for when they all failed. */
  leave(
    permit: Permit,
    sent: readonly Outcome[] | DisconnectedError | null,
    names: () => readonly string[],
  ): void {
    if (this.#permits.delete(permit)) this.#gate.leave(permit, sent, names);
  }

  withdraw(): void {
    this.#gate.withdraw(this);
  }

  /** Gives back all that it has: what is still under way is left behind. */
  close(): void {
    this.withdraw();
    for (const permit of this.#permits) this.leave(permit, null, noNames);
  }
}

function noNames(): readonly string[] {
  return [];
}
