/**
 * Requests over the in-memory network: limits, the handler, its progress frames, the answer, and who is told when one
 * side gives up. It keeps the codes of the real transport; it does not know when a message arrives.
 */
import { must } from '../std/assert.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { progressFramesMax, requestsInFlightMax } from './limits.ts';
import { type Exchange, type Hub, type Member, penalize, reportBug, send } from './memory-hub.ts';
import type { Protocol } from './protocol.ts';
import type { NodeId, Progress } from './transport.ts';

export function request(
  hub: Hub,
  from: Member,
  peer: NodeId,
  protocol: Protocol,
  body: Uint8Array,
  signal: AbortSignal | undefined,
  onFrame: Exchange['onFrame'],
): Promise<Outcome<Uint8Array>> {
  if (!from.alive || signal?.aborted) return Promise.resolve(reject('aborted'));
  if (body.length > protocol.requestBytesMax) return Promise.resolve(reject('too-large', 'the request'));
  const inFlight = [...from.exchanges].filter(
    (other) => other.peer === peer && other.protocol.id === protocol.id,
  );
  if (inFlight.length >= requestsInFlightMax)
    return Promise.resolve(reject('refused', 'too many requests at once'));
  const connection = from.connected.get(peer);
  if (connection === undefined) return Promise.resolve(reject('unreachable', 'not connected'));
  const to = must(hub.members.get(peer), 'connected peer');
  return new Promise((resolve) => {
    const exchange = beginExchange(hub, from, { peer, protocol, connection, signal, onFrame, resolve });
    const copy = body.slice();
    const arrive = () => void answer(hub, from, to, exchange, copy);
    exchange.expectProgress(send(hub, from, to, copy.length, arrive));
  });
}

function beginExchange(
  hub: Hub,
  from: Member,
  start: Pick<Exchange, 'peer' | 'protocol' | 'connection' | 'onFrame'> & {
    readonly signal: AbortSignal | undefined;
    readonly resolve: (outcome: Outcome<Uint8Array>) => void;
  },
): Exchange {
  const { clock } = hub.options;
  const { peer, protocol, connection, onFrame, signal, resolve } = start;
  // The deadline's timer is set first: at equal times `timeout` is said, as by the real transport.
  const cancelDeadline = clock.setTimer(protocol.timeoutMs, () => exchange.settle(reject('timeout')));
  let cancelIdle = () => {};
  const onAbort = () => exchange.settle(reject('aborted'));
  const exchange: Exchange = {
    peer,
    protocol,
    connection,
    onFrame,
    abort: new AbortController(),
    beganAtMs: clock.nowMs(),
    order: { lastArrivalMs: 0 },
    frames: 0,
    isAnswered: false,
    settled: false,
    expectProgress(fromMs) {
      cancelIdle();
      const idleMs = fromMs - clock.nowMs() + protocol.idleTimeoutMs;
      cancelIdle = clock.setTimer(idleMs, () => exchange.settle(reject('stalled')));
    },
    settle(outcome) {
      if (exchange.settled) return;
      exchange.settled = true;
      cancelDeadline();
      cancelIdle();
      signal?.removeEventListener('abort', onAbort);
      from.exchanges.delete(exchange);
      tellHandler(hub, from, exchange);
      resolve(outcome);
    },
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  from.exchanges.add(exchange);
  return exchange;
}

/** The handler learns that nobody waits any more: at once when the connection is lost, else over the link. */
function tellHandler(hub: Hub, from: Member, exchange: Exchange): void {
  if (exchange.isAnswered) return;
  const to = hub.members.get(exchange.peer);
  const stands = from.alive && to && from.connected.get(to.id) === exchange.connection;
  if (stands) send(hub, from, to, 0, () => exchange.abort.abort(), { isSure: true });
  else exchange.abort.abort();
}

/** At the other side: the limits, then the handler, then the way back. */
async function answer(
  hub: Hub,
  from: Member,
  to: Member,
  exchange: Exchange,
  body: Uint8Array,
): Promise<void> {
  if (exchange.settled) return;
  exchange.expectProgress(hub.options.clock.nowMs());
  const outcome = await serve(hub, from, to, exchange, body);
  if (exchange.settled || to.connected.get(from.id) !== exchange.connection) return;
  const bytes = outcome.ok ? outcome.value.length : outcome.code.length + outcome.detail.length;
  const copy = outcome.ok ? accept(outcome.value.slice()) : outcome;
  const arrive = () => {
    if (exchange.settled) return;
    const tooLarge = copy.ok && copy.value.length > exchange.protocol.responseBytesMax;
    exchange.settle(tooLarge ? reject('too-large', 'the response') : copy);
    if (tooLarge) penalize(hub, from, to.id, 'too-large');
  };
  exchange.expectProgress(send(hub, to, from, bytes, arrive, { order: exchange.order }));
}

async function serve(
  hub: Hub,
  from: Member,
  to: Member,
  exchange: Exchange,
  body: Uint8Array,
): Promise<Outcome<Uint8Array>> {
  const entry = to.handlers.get(exchange.protocol.id);
  if (!entry) return reject('unknown-protocol', exchange.protocol.id);
  const { protocol, handler } = entry;
  const refusal = refusalOf(to, from.id, protocol, body.length);
  if (refusal) {
    penalize(hub, to, from.id, refusal.code);
    return refusal;
  }
  const release = to.held.take(from.id, body.length);
  if (!release) return reject('busy', 'too many bytes at once');
  const progress: Progress = (frame) => {
    if (!exchange.isAnswered) sendFrame(hub, from, to, exchange, protocol, frame);
  };
  try {
    const outcome = await handler(from.id, body, exchange.abort.signal, progress);
    if (outcome.ok && outcome.value.length > protocol.responseBytesMax)
      return reject('too-large', 'the response');
    return outcome;
  } catch (error) {
    reportBug(hub, to, error);
    return reject('failed');
  } finally {
    exchange.isAnswered = true;
    release();
  }
}

function sendFrame(
  hub: Hub,
  from: Member,
  to: Member,
  exchange: Exchange,
  protocol: Protocol,
  frame: Uint8Array,
): void {
  if (exchange.settled || exchange.abort.signal.aborted) return;
  if (to.connected.get(from.id) !== exchange.connection) return;
  if (frame.length > (protocol.frameBytesMax ?? -1)) return;
  if (exchange.frames >= progressFramesMax(hub.options.clock.nowMs() - exchange.beganAtMs)) return;
  exchange.frames += 1;
  const copy = frame.slice();
  const arrive = () => {
    if (exchange.settled) return;
    if (copy.length > (exchange.protocol.frameBytesMax ?? -1)) {
      exchange.settle(reject('too-large', 'the frame'));
      penalize(hub, from, to.id, 'too-large');
      return;
    }
    exchange.expectProgress(hub.options.clock.nowMs());
    exchange.onFrame?.(copy);
  };
  send(hub, to, from, copy.length, arrive, { order: exchange.order });
}

function refusalOf(to: Member, from: NodeId, protocol: Protocol, bytes: number): Rejection | null {
  const key = `${from} ${protocol.id}`;
  if (!to.rates.take(key, protocol.requestsPerMinuteMax)) return reject('refused', 'too many requests');
  if (bytes > protocol.requestBytesMax) return reject('too-large', 'the request');
  return null;
}
