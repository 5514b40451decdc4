/**
 * What goes wrong with one message when an expression looks at it. Inside the evaluator a failure
 * is a value, for messages that fail are usual and throwing is slow; outside it is an error.
 */
import { GatewayError } from "../errors.ts";

/**
 * An expression, a template or a change failed on this message: the same message fails again.
 * For `where` it counts as false; for `set` and addresses it is a failure of the message.
 */
export class EvaluationError extends GatewayError {
  readonly code = "evaluation-failed";
  readonly retryable = false;
}

/** A failure as a value: what a closure gives in place of its result. Made once where possible. */
export class Failure {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}
