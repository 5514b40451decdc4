/**
 * Whether a target is asked at all. One that can't be reached, or that fails message after message,
 * is left alone for a while, and then asked with one call; the rest wait. One that wants nothing
 * more is left alone until a person says otherwise. Pure: its owner has the clock.
 */
import type { Outcome } from "../bridge.ts";
import { DisconnectedError } from "../errors.ts";
import { circuitFailures } from "../rules/limits.ts";
import { outageMs } from "./trouble.ts";

/** How a target stands. */
export interface CircuitStatus {
  /**
   * `closed`: it is asked; `open`: it is left alone until `untilMs`; `probing`: one call asks;
   * `disabled`: it has said that it wants nothing more.
   */
  readonly state: "closed" | "open" | "probing" | "disabled";
  /** What it said last. */
  readonly reason: string | null;
  /** Unix milliseconds; null: not for a time. */
  readonly untilMs: number | null;
}

/** What a call says of its target. */
export type Verdict =
  | { readonly kind: "alive" }
  /** Nobody was reached. */
  | { readonly kind: "down"; readonly reason: string }
  /** It was reached and took none of these. */
  | {
      readonly kind: "busy";
      readonly failed: readonly string[];
      readonly reason: string;
      readonly busyMs: number;
    }
  /** Nothing was asked. */
  | { readonly kind: "none" };

/** What a call says, by what came of it; `names` are those of its messages. */
export function verdictOf(
  sent: readonly Outcome[] | DisconnectedError | null,
  names: () => readonly string[],
): Verdict {
  if (sent === null) return { kind: "none" };
  if (sent instanceof DisconnectedError) return { kind: "down", reason: sent.message };
  let reason = "the target did not confirm";
  let busyMs = 0;
  for (const outcome of sent) {
    if ("sent" in outcome || "refused" in outcome) return { kind: "alive" };
    if (!("busyMs" in outcome)) continue;
    reason = outcome.reason ?? "the target is busy";
    busyMs = Math.max(busyMs, outcome.busyMs);
  }
  return { kind: "busy", failed: names(), reason, busyMs };
}

/** The circuit of one target. */
export class Circuit {
  readonly #random: () => number;
  /** Messages that failed since one was taken. */
  readonly #failed = new Set<string>();
  #state: "closed" | "open" | "probing" = "closed";
  #reason: string | null = null;
  #untilMs = 0;
  /** Times in a row that it was left alone. */
  #rests = 0;
  #openings = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  get state(): "closed" | "open" | "probing" {
    return this.#state;
  }

  get reason(): string | null {
    return this.#reason;
  }

  /** When an open one is asked again, by a clock that never goes back. Milliseconds. */
  get untilMs(): number {
    return this.#untilMs;
  }

  /** Times that it was left alone, for the metrics. */
  get openings(): number {
    return this.#openings;
  }

  /** A rest is over: what is begun now is the call that asks. */
  probe(): void {
    this.#state = "probing";
  }

  /** Asks again at once, as if nothing had been. */
  reset(): void {
    this.#close();
  }

  /** Learns from a call; `isProbe`: the one that asked. */
  learn(verdict: Verdict, isProbe: boolean, steadyMs: number): void {
    if (verdict.kind === "alive") return this.#close();
    if (verdict.kind === "none") {
      if (isProbe && this.#state === "probing") this.#open(steadyMs, 0);
      return;
    }
    const isAsked = this.#state === "closed" || (isProbe && this.#state === "probing");
    if (!isAsked) return;
    if (verdict.kind === "busy") {
      for (const name of verdict.failed.slice(0, circuitFailures)) this.#failed.add(name);
      if (!isProbe && this.#failed.size < circuitFailures) return;
    }
    this.#reason = verdict.reason;
    this.#rests++;
    this.#openings++;
    const least = verdict.kind === "busy" ? verdict.busyMs : 0;
    this.#open(steadyMs, Math.max(least, outageMs(this.#rests, this.#random)));
  }

  #open(steadyMs: number, restMs: number): void {
    this.#state = "open";
    this.#untilMs = steadyMs + restMs;
  }

  #close(): void {
    if (this.#state === "closed" && this.#failed.size === 0) return;
    this.#failed.clear();
    this.#state = "closed";
    this.#reason = null;
    this.#rests = 0;
  }
}
