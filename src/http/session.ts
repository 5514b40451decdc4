/**
 * One socket: frames in, in order; what each leads to; and the end. A frame that takes time (who
 * is the caller, where does the name stand) holds up those behind it, within bounds; a publish
 * does not, its answer comes when the disk has it. Errors are told and never close by themselves.
 */
import {
  ConflictError,
  ForbiddenError,
  LimitError,
  NotFoundError,
  UnauthorizedError,
} from "../errors.ts";
import {
  socketAuthMs,
  socketPingMs,
  socketPublishesMax,
  socketSubscriptionsMax,
} from "../limits.ts";
import type { Stream } from "../log/stream.ts";
import { mayRead, type Principal } from "../rules/store/roles.ts";
import { appendFailure, readableStream } from "./append.ts";
import { requireRead } from "./auth.ts";
import { FrameQueue } from "./frame-queue.ts";
import {
  type About,
  aboutOf,
  type ClientFrame,
  CLOSE,
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
import type { HttpServices } from "./services.ts";
import { Subscription } from "./subscription.ts";

/** What a session is made from. */
export interface SessionParts {
  readonly services: HttpServices;
  readonly names: DurableNames;
  /** A token that came with the upgrade. */
  readonly token: string | null;
}

/** A socket as it lives. */
export class SocketSession {
  readonly id: string;
  readonly #parts: SessionParts;
  readonly #outbox: Outbox;
  readonly #openedMs: number;
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #owned = new Set<Promise<void>>();
  readonly #queue = new FrameQueue((text) => this.#handle(text));
  #principal: Principal | null = null;
  #ending: Promise<void> | null = null;

  constructor(socket: RawSocket, parts: SessionParts) {
    this.id = parts.services.ids();
    this.#parts = parts;
    this.#outbox = new Outbox(socket);
    this.#openedMs = parts.services.clock.monotonicMs();
    const { token } = parts;
    if (token !== null) this.#queue.hold(this.#guarded({}, this.#authenticate(token)));
  }

  /** Takes a frame. */
  received(data: string | Uint8Array): void {
    if (!this.#outbox.isOpen) return;
    if (typeof data !== "string") {
      this.#outbox.answer(errorFrame({}, "invalid", "frames are text, one JSON object each"));
      return;
    }
    if (!this.#queue.push(data)) this.close(CLOSE.unread, "more frames than can wait");
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

  /** Looks at deadlines, the token and progress; called twice a second. */
  tick(): void {
    const { clock, tokens } = this.#parts.services;
    const principal = this.#principal;
    if (principal === null) {
      const isLate = clock.monotonicMs() - this.#openedMs > socketAuthMs;
      if (isLate) this.close(CLOSE.authTimeout, "no auth in time");
      return;
    }
    const { expiresAtMs } = principal;
    if (expiresAtMs !== null && expiresAtMs <= clock.nowMs()) {
      return this.close(CLOSE.expired, "the token has expired");
    }
    if (!tokens.isStanding(principal))
      return this.close(CLOSE.unauthorized, "the token was revoked");
    for (const subscription of this.#subscriptions.values()) subscription.tick();
  }

  /** How it stands, for lists. */
  describe(): object {
    const subscriptions = [...this.#subscriptions.values()].map((each) => each.describe());
    return { session: this.id, subject: this.#principal?.subject ?? null, subscriptions };
  }

  async #end(): Promise<void> {
    // First what runs: a frame under way may be waiting for a name that one of these holds, by way
    // of another connection that waits for this one.
    await this.#stopAll();
    await this.#queue.close();
    await this.#stopAll();
    await Promise.all(this.#owned);
  }

  async #stopAll(): Promise<void> {
    const all = [...this.#subscriptions.values()];
    this.#subscriptions.clear();
    await Promise.all(all.map((subscription) => subscription.stop()));
  }

  /** Handles a frame; a promise when those behind it have to wait. It never rejects. */
  #handle(text: string): Promise<void> | null {
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
    const { problem } = explained(appendFailure(error), this.#parts.services.telemetry);
    this.#outbox.answer(errorFrame(about, problem.code, problem.detail));
  }

  #dispatch(frame: ClientFrame): Promise<void> | null {
    switch (frame.op) {
      case "auth":
        return this.#authenticate(frame.token);
      case "ping":
        this.#outbox.answer('{"op":"pong"}');
        return null;
      case "subscribe":
        return this.#subscribe(frame, this.#caller());
      case "ack":
        this.#subscription(frame.sub).ack(frame.cursor);
        return null;
      case "unsubscribe": {
        const subscription = this.#subscription(frame.sub);
        this.#subscriptions.delete(frame.sub);
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

  async #authenticate(token: string): Promise<void> {
    const principal = await this.#parts.services.tokens.authenticate(token);
    if (!this.#outbox.isOpen) return;
    if (principal === null) {
      this.#outbox.answer(errorFrame({}, "unauthorized", "this token is not valid"));
      return this.close(CLOSE.unauthorized, "this token is not valid");
    }
    const before = this.#principal;
    if (before !== null && before.subject !== principal.subject) {
      throw new ForbiddenError("a connection belongs to one subject: open another one");
    }
    this.#principal = principal;
    const isBeyond = [...this.#subscriptions.values()].some(({ stream, key }) => {
      return !mayRead(principal, stream.name, key);
    });
    if (isBeyond) return this.close(CLOSE.forbidden, "the token does not allow a subscription");
    this.#outbox.answer(welcomeFrame(this.id, socketPingMs));
  }

  async #subscribe(frame: SubscribeFrame, principal: Principal): Promise<void> {
    const { services, names } = this.#parts;
    const { sub, name, where, as, key } = frame;
    this.#checkRoom(frame);
    requireRead(principal, frame.stream, key);
    const stream = readableStream(services, frame.stream);
    const selection = new Selection({ key, where, as });
    const claim =
      name === null ? null : await names.claim(principal.subject, name, this.#holder(sub));
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
        clock: services.clock,
        telemetry: services.telemetry,
        durable: claim === null || name === null ? null : { name, claim, window: frame.window },
        failed: (error) => this.#lost(sub, error),
      });
      this.#subscriptions.set(sub, subscription);
      for (const gap of gaps.length === 0 ? [null] : gaps) {
        this.#outbox.answer(subscribedFrame(sub, encodeCursor(cursor), gap));
      }
      subscription.start();
    } catch (error) {
      await claim?.release();
      throw error;
    }
  }

  /** Where a subscription begins: after its last ack, or where the client says. */
  async #beginning(frame: SubscribeFrame, stream: Stream, claim: NameClaim | null) {
    const saved = claim === null ? null : await claim.load(stream.name);
    if (saved !== null) return adjusted(stream, saved, null);
    const nowMs = this.#parts.services.clock.nowMs();
    const wanted = await placeCursor(frame.from, { stream, partition: null, nowMs, name: "from" });
    const beginning = adjusted(stream, wanted, null);
    await claim?.begin(stream.name, beginning.cursor);
    return beginning;
  }

  #checkRoom({ sub, name }: SubscribeFrame): void {
    if (this.#subscriptions.has(sub)) {
      throw new ConflictError(
        "conflict",
        "there is a subscription by that name: choose another one",
      );
    }
    if (this.#subscriptions.size >= socketSubscriptionsMax) {
      const message = `a connection has at most ${socketSubscriptionsMax} subscriptions`;
      throw new LimitError("too-large", message);
    }
    const isTaken = [...this.#subscriptions.values()].some((each) => each.name === name);
    if (name !== null && isTaken) {
      throw new ConflictError("conflict", "this connection reads by that name already");
    }
  }

  #holder(sub: string) {
    return {
      takenOver: () => {
        const message = "another connection goes on with this name";
        this.#outbox.answer(errorFrame({ sub }, "taken-over", message));
        this.close(CLOSE.takenOver, message);
      },
      failed: (error: unknown) => this.#tellError({ sub }, error),
    };
  }

  /** A subscription could not read on: it is over, the socket goes on. */
  #lost(sub: string, error: unknown): void {
    this.#tellError({ sub }, error);
    const subscription = this.#subscriptions.get(sub);
    if (subscription === undefined) return;
    this.#subscriptions.delete(sub);
    this.#own(subscription.stop());
  }

  #publish(frame: PublishFrame): Promise<void> | null {
    const pending = publishFrame(frame, this.#caller(), this.#parts.services);
    const answered = this.#guarded({ ref: frame.ref }, this.#published(pending));
    this.#own(answered);
    return this.#owned.size < socketPublishesMax ? null : answered;
  }

  async #published(answer: Promise<string>): Promise<void> {
    this.#outbox.answer(await answer);
  }

  /** Keeps work that nobody waits for until the end of the session. It must not reject. */
  #own(work: Promise<void>): void {
    const owned = work.finally(() => this.#owned.delete(owned));
    this.#owned.add(owned);
  }
}
