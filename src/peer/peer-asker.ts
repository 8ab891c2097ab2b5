/**
 * Getting one thing from whichever peer gives it: one peer after another, those that lied never again, those that
 * failed or do not have it after a pause that doubles. It does not know what is asked for; the asker judges the answers.
 */
import { rememberedPeersMax } from '../net/limits.ts';
import type { Protocol } from '../net/protocol.ts';
import { createRateLimiter } from '../net/rate-limit.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';

/** What one peer did when it was asked. */
export type Attempt<T> =
  | { readonly kind: 'given'; readonly value: T }
  /** It answered, against the rules: it is penalised once and not asked again. */
  | { readonly kind: 'lied'; readonly code: string }
  /** It says that it has not got this; it may later, and it may have other things. */
  | { readonly kind: 'absent' }
  /** No answer in time, or refused. */
  | { readonly kind: 'failed' };

export interface Question<T> {
  /** What is asked for, in words; peers that have not got it are remembered under it. */
  readonly topic: string;
  /** Where in the row of peers to begin, so that questions asked at once go to different peers. */
  readonly start?: number;
  /** After this long the question ends unanswered. */
  readonly patienceMs: number;
  attempt(peer: NodeId): Promise<Attempt<T>>;
}

export interface PeerAskerOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly protocol: Protocol;
  /** Ends everything: pending and later questions reject with its reason. */
  readonly signal: AbortSignal;
  /** Code of the error when patience ends. */
  readonly unavailableCode: string;
  /** All peers have been asked in vain for the first time; the question goes on. */
  readonly onWaiting?: (topic: string) => void;
}

export interface PeerAsker {
  /**
   * The first answer that an attempt accepts. Rejects with CodedError `unavailableCode` when patience has ended and
   * everybody who may be asked has been, or with the signal's reason.
   */
  ask<T>(question: Question<T>): Promise<T>;
  /** One request within the rate that the protocol allows us; waits where we have been too fast. */
  request(peer: NodeId, body: Uint8Array, signal?: AbortSignal): Promise<Outcome<Uint8Array>>;
}

const restMsMin = 1_000;
const restMsMax = 10_000;
const pauseMsMin = 250;
const pauseMsMax = 4_000;
const paceMs = 20;
/** Of the rate that a peer allows: its clock is not ours. */
const rateShare = 0.8;

interface Rest {
  readonly untilMs: number;
  readonly lengthMs: number;
}

interface Asking {
  readonly options: PeerAskerOptions;
  readonly liars: Set<NodeId>;
  /** By peer, or by topic and peer. Oldest first, and no more than `rememberedPeersMax`. */
  readonly rests: Map<string, Rest>;
}

export function createPeerAsker(options: PeerAskerOptions): PeerAsker {
  const { transport, clock, protocol, signal } = options;
  const rates = createRateLimiter(clock);
  const asking: Asking = { options, liars: new Set(), rests: new Map() };
  return {
    ask: (question) => ask(asking, question),
    async request(peer, body, requestSignal = signal) {
      const perMinute = rateShare * protocol.requestsPerMinuteMax;
      while (!rates.take(peer, perMinute) && !requestSignal.aborted) await sleep(clock, paceMs);
      return transport.request(peer, protocol, body, requestSignal);
    },
  };
}

async function ask<T>(asking: Asking, question: Question<T>): Promise<T> {
  const { clock, signal, onWaiting } = asking.options;
  const { topic, patienceMs } = question;
  const untilMs = clock.nowMs() + patienceMs;
  for (let pauseMs = pauseMsMin, pass = 0; ; pauseMs = Math.min(pauseMsMax, 2 * pauseMs), pass++) {
    const given = await askEach(asking, question);
    if (given) return given.value;
    signal.throwIfAborted();
    if (clock.nowMs() >= untilMs) throw unavailable(asking.options, topic, patienceMs);
    if (pass === 0) onWaiting?.(topic);
    await pause(asking.options, Math.min(pauseMs, untilMs - clock.nowMs()));
    signal.throwIfAborted();
  }
}

/** Every peer that may be asked, once; undefined when none of them gave it. */
async function askEach<T>(
  asking: Asking,
  { topic, start = 0, attempt }: Question<T>,
): Promise<(Attempt<T> & { readonly kind: 'given' }) | undefined> {
  const { transport, signal } = asking.options;
  const peers = transport.peers();
  for (let i = 0; i < peers.length; i++) {
    const peer = peers[(start + i) % peers.length]!;
    if (!mayAsk(asking, peer, topic)) continue;
    signal.throwIfAborted();
    const answer = await attempt(peer);
    signal.throwIfAborted();
    note(asking, peer, topic, answer);
    if (answer.kind === 'given') return answer;
  }
  return undefined;
}

function mayAsk({ options, liars, rests }: Asking, peer: NodeId, topic: string): boolean {
  const isResting = (key: string) => (rests.get(key)?.untilMs ?? 0) > options.clock.nowMs();
  return !liars.has(peer) && !isResting(peer) && !isResting(`${topic} ${peer}`);
}

function note(asking: Asking, peer: NodeId, topic: string, attempt: Attempt<unknown>): void {
  const { rests, liars } = asking;
  if (attempt.kind === 'failed') rest(asking, peer);
  else if (attempt.kind === 'absent') rest(asking, `${topic} ${peer}`);
  else if (attempt.kind === 'given') {
    rests.delete(peer);
    rests.delete(`${topic} ${peer}`);
  } else if (!liars.has(peer)) {
    liars.add(peer);
    if (liars.size > rememberedPeersMax) liars.delete(liars.values().next().value as NodeId);
    // The transport has scored an oversize answer itself.
    if (attempt.code !== 'too-large') asking.options.transport.penalize(peer, attempt.code);
  }
}

function rest({ options, rests }: Asking, key: string): void {
  const lengthMs = Math.min(restMsMax, 2 * (rests.get(key)?.lengthMs ?? restMsMin / 2));
  rests.delete(key);
  rests.set(key, { untilMs: options.clock.nowMs() + lengthMs, lengthMs });
  if (rests.size > rememberedPeersMax) rests.delete(rests.keys().next().value as string);
}

/** Until the time has passed or somebody new is there. */
async function pause({ transport, clock, signal }: PeerAskerOptions, ms: number): Promise<void> {
  const woken = new AbortController();
  const wake = () => woken.abort();
  const unlisten = transport.onPeerChange((_peer, connected) => connected && wake());
  signal.addEventListener('abort', wake, { once: true });
  try {
    await sleep(clock, ms, woken.signal).catch(() => undefined);
  } finally {
    unlisten();
    signal.removeEventListener('abort', wake);
  }
}

function unavailable(options: PeerAskerOptions, topic: string, patienceMs: number): CodedError {
  const seconds = Math.round(patienceMs / 1000);
  const peers = options.transport.peers().length;
  return new CodedError(
    options.unavailableCode,
    `no peer gave ${topic} within ${seconds} seconds (${peers} connected)`,
  );
}
