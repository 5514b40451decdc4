/** The receipts of one append, for those who append and those who wait for a look at the disk. */
import { assert } from "../assert.ts";
import type { Appended, Receipt } from "./log.ts";

/** What an append gives at once; its receipts are true once `durable` has resolved. */
export class Receipts implements Appended {
  readonly durable: Promise<void>;
  readonly #receipts: readonly Receipt[];

  constructor(durable: Promise<void>, receipts: readonly Receipt[]) {
    this.durable = durable;
    this.#receipts = receipts;
  }

  receipt(index: number): Receipt {
    const receipt = this.#receipts[index];
    assert(receipt !== undefined, "a receipt is asked for a message of its append");
    return receipt;
  }
}
