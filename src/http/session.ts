/**
 * One socket: frames in, in order; what each leads to; and the end. A frame that takes time (who
 * is the caller, where does the name stand) holds up those behind it, within bounds; a publish
 * does not, its answer comes when the disk has it. Errors are told and never close by themselves.
 */
import {
  ConflictError,
  LimitError,
  NotFoundError,
  TokenExpiredError,
  UnauthorizedError,
} from "../errors.ts";
import { limitedRetryMs, socketAuthMs, socketPingMs, socketPublishesMax } from "../limits.ts";
import type { Stream } from "../log/stream.ts";
import { type Principal, readReach } from "../rules/store/roles.ts";
import { appendFailure, readableStream } from "./append.ts";
import type { Admission } from "./admission.ts";
import { type Credential, callerBy, requireRead } from "./auth.ts";
import type { ConnectionCounts } from "./client-limits.ts";
import { type FrameHandler, FrameQueue } from "./frame-queue.ts";
import {
  type About,
  aboutOf,
  type ClientFrame,
  CLOSE,
  closeReason,
  errorFrame,
  parseMembers,
  type PublishFrame,
  readFrame,
  type SubscribeFrame,
  subscribedFrame,
  welcomeFrame,
} from "./frames.ts";
import type { DurableNames, NameClaim } from "./names.ts";
import { Outbox, type RawSocket } from "./outbox.ts";
import { adjusted, placeCursor } from "./position.ts";
import { explained } from "./problem.ts";
import { publishFrame } from "./publish-frame.ts";
import { Selection } from "./range.ts";
import { encodeCursor } from "../log/cursor.ts";
import type { HttpContext } from "./services.ts";
import { Subscription, type SubscriptionOwner } from "./subscription.ts";

/** What all sessions share. */
export interface SessionTools {
  readonly context: HttpContext;
  readonly names: DurableNames;
  readonly admission: Admission;
  /** How far apart clients come back when connections break. Milliseconds. */
  readonly spreadMs: () => number;
}

/** What came with the upgrade. */
export interface SessionStart {
  readonly credential: Credential;
  readonly counts: ConnectionCounts;
}

/** A socket as it lives. What it has only now and then is made then: most are idle. */
export class SocketSession implements FrameHandler, SubscriptionOwner {
  readonly id: string;
  readonly #parts: SessionTools;
  readonly #counts: ConnectionCounts;
  readonly #outbox: Outbox;
  readonly #openedMs: number;
  readonly #subscriptions = new Map<string, Subscription>();
  #owned: Set<Promise<void>> | null = null;
  readonly #queue = new FrameQueue(this);
  #principal: Principal | null = null;
  /** A token is being checked, or waits for that. */
  #isAsking = false;
  /** While it is made to wait for a rate. */
  #leaving: AbortController | null = null;
  #ending: Promise<void> | null = null;

  constructor(socket: RawSocket, parts: SessionTools, { credential, counts }: SessionStart) {
    this.id = parts.context.ids();
    this.#parts = parts;
    this.#counts = counts;
    this.#outbox = new Outbox(socket);
    this.#openedMs = parts.context.clock.monotonicMs();
    if (credential === null) return;
    this.#queue.hold(this.#guarded({}, this.#authenticate(credential)));
  }

  /** Whether its caller is known. */
  get isKnown(): boolean {
    return this.#principal !== null;
  }

  /** Whether its client has not read what was sent. */
  get isBlocked(): boolean {
    return this.#outbox.isBlocked;
  }

  get subscriptions(): Iterable<Subscription> {
    return this.#subscriptions.values();
  }

  /** Takes a frame. */
  received(data: string | Uint8Array): void {
    if (!this.#outbox.isOpen) return;
    if (typeof data !== "string") {
      this.#outbox.answer(errorFrame({}, "invalid", "frames are text, one JSON object each"));
      return;
    }
    if (!this.#queue.push(data)) {
      return this.close(CLOSE.unread, closeReason("more frames than can wait", limitedRetryMs));
    }
  }

  /** The client has read what was waiting. */
  drained(): void {
    this.#outbox.drained();
  }

  /** Closes from our side. */
  close(code: number, reason: string): void {
    this.#outbox.close(code, reason);
    this.#ending ??= this.#end();
  }

  /** The connection is gone; resolves when everything of it has ended. */
  closed(): Promise<void> {
    this.#outbox.ended();
    this.#ending ??= this.#end();
    return this.#ending;
  }

  /** Looks at deadlines, the caller and progress; called twice a second. */
  tick(): void {
    const { clock, callers } = this.#parts.context;
    const principal = this.#principal;
    if (principal === null) {
      // A token that waits for its turn is in time.
      const isLate = clock.monotonicMs() - this.#openedMs > socketAuthMs && !this.#isAsking;
      if (isLate) this.close(CLOSE.authTimeout, "no auth in time");
      return;
    }
    const standing = callers.standing(principal);
    if (standing === "expired") return this.close(CLOSE.expired, "the token has expired");
    if (standing === "revoked") return this.close(CLOSE.unauthorized, "the token was revoked");
    if (standing === "changed") {
      const spreadMs = this.#parts.context.random() * this.#parts.spreadMs();
      return this.close(CLOSE.changed, closeReason("tokens are checked anew", spreadMs));
    }
    if (standing !== principal && !this.#become(standing)) return;
    for (const subscription of this.#subscriptions.values()) subscription.tick();
  }

  /** How it stands, for lists. */
  describe(): object {
    const subscriptions = [...this.#subscriptions.values()].map((each) => each.describe());
    return { session: this.id, subject: this.#principal?.subject ?? null, subscriptions };
  }

  async #end(): Promise<void> {
    this.#leaving?.abort();
    this.#counts.leave();
    // First what runs: a frame under way may be waiting for a name that one of these holds, by way
    // of another connection that waits for this one.
    await this.#stopAll();
    await this.#queue.close();
    await this.#stopAll();
    if (this.#owned !== null) await Promise.all(this.#owned);
  }

  async #stopAll(): Promise<void> {
    const all = [...this.#subscriptions.values()];
    this.#subscriptions.clear();
    await Promise.all(all.map((subscription) => subscription.stop()));
  }

  /** Handles a frame; a promise when those behind it have to wait. It never rejects. */
  handle(text: string): Promise<void> | null {
    const waitMs = this.#counts.take(1, text.length);
    const pending = this.#handleNow(text);
    if (waitMs === 0) return pending;
    // Who sends faster than it may is read more slowly: nothing is refused or overtaken.
    this.#leaving ??= new AbortController();
    const pause = this.#parts.context.clock.sleep(waitMs, this.#leaving.signal);
    return pending === null ? pause : pending.then(() => pause);
  }

  #handleNow(text: string): Promise<void> | null {
    let about: About = {};
    try {
      const members = parseMembers(text);
      about = aboutOf(members);
      const pending = this.#dispatch(readFrame(members));
      return pending === null ? null : this.#guarded(about, pending);
    } catch (error) {
      this.#tellError(about, error);
      return null;
    }
  }

  async #guarded(about: About, work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#tellError(about, error);
    }
  }

  #tellError(about: About, error: unknown): void {
    const failure = appendFailure(error);
    const { problem } = explained(failure, this.#parts.context.telemetry);
    this.#parts.context.telemetry.intake("socket").count(problem.code);
    const retryMs = failure instanceof LimitError ? failure.retryAfterMs : null;
    this.#outbox.answer(errorFrame(about, problem.code, problem.detail, retryMs));
  }

  #dispatch(frame: ClientFrame): Promise<void> | null {
    switch (frame.op) {
      case "auth":
        return this.#authenticate({ token: frame.token });
      case "ping":
        this.#outbox.answer('{"op":"pong"}');
        return null;
      case "subscribe":
        return this.#parts.admission.run(() => this.#subscribe(frame, this.#caller()));
      case "ack":
        this.#subscription(frame.sub).ack(frame.cursor);
        return null;
      case "unsubscribe": {
        const subscription = this.#subscription(frame.sub);
        this.#subscriptions.delete(frame.sub);
        this.#counts.unsubscribe();
        return subscription.stop();
      }
      case "publish":
        return this.#publish(frame);
    }
  }

  #caller(): Principal {
    if (this.#principal !== null) return this.#principal;
    throw new UnauthorizedError('send {"op":"auth","token":…} first');
  }

  #subscription(sub: string): Subscription {
    this.#caller();
    const found = this.#subscriptions.get(sub);
    if (found === undefined) throw new NotFoundError("there is no subscription by that name");
    return found;
  }

  async #authenticate(credential: NonNullable<Credential>): Promise<void> {
    const { admission, context } = this.#parts;
    this.#isAsking = true;
    try {
      const principal = await admission.run(() => callerBy(credential, context));
      if (!this.#outbox.isOpen) return;
      const before = this.#principal;
      if (before !== null && before.subject !== principal.subject) {
        return this.close(CLOSE.forbidden, "a connection belongs to one subject");
      }
      this.#counts.identify(principal.subject);
      if (!this.#become(principal)) return;
      const told = { pingMs: socketPingMs, spreadMs: this.#parts.spreadMs() };
      this.#outbox.answer(welcomeFrame(this.id, told));
    } catch (error) {
      this.#tellError({}, error);
      this.#refuseCaller(error);
    } finally {
      this.#isAsking = false;
    }
  }

  /** A caller who is not let in: whether to come back, and when, is in the close. */
  #refuseCaller(error: unknown): void {
    const spreadMs = this.#parts.context.random() * this.#parts.spreadMs();
    if (error instanceof TokenExpiredError) this.close(CLOSE.expired, "the token has expired");
    else if (error instanceof UnauthorizedError) this.close(CLOSE.unauthorized, error.message);
    else if (error instanceof LimitError) {
      const retryMs = (error.retryAfterMs ?? limitedRetryMs) + spreadMs;
      this.close(CLOSE.unread, closeReason(error.message, retryMs));
    } else {
      const retryMs = limitedRetryMs + spreadMs;
      this.close(CLOSE.unavailable, closeReason("tokens can't be checked now", retryMs));
    }
  }

  /** Takes over what the caller may do; false: not what it does already, and it is closed. */
  #become(principal: Principal): boolean {
    this.#principal = principal;
    for (const { selection, stream, key } of this.#subscriptions.values()) {
      const reach = readReach(principal, stream.name, key);
      selection.restrict(reach);
      if (reach !== null) continue;
      this.close(CLOSE.forbidden, "the token does not allow a subscription");
      return false;
    }
    return true;
  }

  async #subscribe(frame: SubscribeFrame, principal: Principal): Promise<void> {
    const { context, names } = this.#parts;
    const { sub, name, where, as, key } = frame;
    this.#checkRoom(frame);
    const reach = requireRead(principal, frame.stream, key);
    const stream = readableStream(context, frame.stream);
    const selection = new Selection({ key, where, as }, reach);
    this.#counts.subscribe();
    const claim =
      name === null ? null : await names.claim(principal.subject, name, this.#holder(frame));
    try {
      const { cursor, gaps } = await this.#beginning(frame, stream, claim);
      if (!this.#outbox.isOpen) {
        await claim?.release();
        return;
      }
      const subscription = new Subscription({
        sub,
        stream,
        selection,
        cursor,
        outbox: this.#outbox,
        clock: context.clock,
        telemetry: context.telemetry,
        turns: context.turns,
        durable: claim === null || name === null ? null : { name, claim, window: frame.window },
        owner: this,
      });
      this.#subscriptions.set(sub, subscription);
      for (const gap of gaps.length === 0 ? [null] : gaps) {
        this.#outbox.answer(subscribedFrame(sub, encodeCursor(cursor), gap));
      }
      subscription.start();
    } catch (error) {
      this.#counts.unsubscribe();
      await claim?.release();
      throw error;
    }
  }

  /** Where a subscription begins: after its last ack, or where the client says. */
  async #beginning(frame: SubscribeFrame, stream: Stream, claim: NameClaim | null) {
    const saved = claim === null ? null : await claim.load(stream.name);
    if (saved !== null) return adjusted(stream, saved, null);
    const nowMs = this.#parts.context.clock.nowMs();
    const wanted = await placeCursor(frame.from, { stream, partition: null, nowMs, name: "from" });
    const beginning = adjusted(stream, wanted, null);
    await claim?.begin(stream.name, beginning.cursor);
    return beginning;
  }

  #checkRoom({ sub, name }: SubscribeFrame): void {
    if (this.#subscriptions.has(sub)) {
      throw new ConflictError("conflict", "a subscription has that name: choose another one");
    }
    const isTaken = [...this.#subscriptions.values()].some((each) => each.name === name);
    if (name !== null && isTaken) {
      throw new ConflictError("conflict", "this connection reads by that name already");
    }
  }

  #holder({ sub, client }: SubscribeFrame) {
    return {
      client,
      openedMs: this.#openedMs,
      takenOver: () => {
        const message = "another connection goes on with this name";
        this.#outbox.answer(errorFrame({ sub }, "taken-over", message));
        this.close(CLOSE.takenOver, message);
      },
      failed: (error: unknown) => this.#tellError({ sub }, error),
    };
  }

  /** A subscription could not read on: it is over, the socket goes on. */
  lost(sub: string, error: unknown): void {
    this.#tellError({ sub }, error);
    const subscription = this.#subscriptions.get(sub);
    if (subscription === undefined) return;
    this.#subscriptions.delete(sub);
    this.#counts.unsubscribe();
    this.#own(subscription.stop());
  }

  #publish(frame: PublishFrame): Promise<void> | null {
    const pending = publishFrame(frame, this.#caller(), this.#parts.context);
    const answered = this.#guarded({ ref: frame.ref }, this.#published(pending));
    this.#own(answered);
    return (this.#owned?.size ?? 0) < socketPublishesMax ? null : answered;
  }

  async #published(answer: Promise<string>): Promise<void> {
    this.#outbox.answer(await answer);
  }

  /** Keeps work that nobody waits for until the end of the session. It must not reject. */
  #own(work: Promise<void>): void {
    const all = (this.#owned ??= new Set());
    const owned = work.finally(() => all.delete(owned));
    all.add(owned);
  }
}
