/**
 * The asking side of request-response over libp2p: each call has a kept-open stream for itself until it ends, with its
 * deadline and its silence watched. It does not know how peers are found, only how to open a stream to one.
 */
import type { Stream } from '@libp2p/interface';
import {
  type Admission,
  decodeRejection,
  type Frame,
  type FrameKind,
  rejectionBytesMax,
} from '../../net/frame.ts';
import { progressFramesMax, requestsInFlightMax } from '../../net/limits.ts';
import type { Protocol } from '../../net/protocol.ts';
import type { NodeId } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { createStreamPool, type Lane, type StreamPool } from './libp2p-stream-pool.ts';

export interface RequestClientOptions {
  readonly clock: Clock;
  /** Opens a stream to a connected peer, or says why not (`unreachable`, `unknown-protocol`). */
  readonly openStream: (peer: NodeId, protocol: Protocol, signal: AbortSignal) => Promise<Outcome<Stream>>;
  readonly penalize: (peer: NodeId, code: string) => void;
}

export interface RequestClient {
  request(
    peer: NodeId,
    protocol: Protocol,
    body: Uint8Array,
    signal?: AbortSignal,
    onFrame?: (frame: Uint8Array) => void,
  ): Promise<Outcome<Uint8Array>>;
  /** Ends everything in flight as `aborted`. */
  close(): void;
}

/** The streams to one peer for one protocol, and how many calls have or want one. */
interface Route {
  readonly pool: StreamPool;
  calls: number;
}

/** One request: `settle` ends it once and for all. */
interface Call {
  readonly protocol: Protocol;
  readonly onFrame: ((frame: Uint8Array) => void) | undefined;
  /** Aborts when it has ended, however. */
  readonly ended: AbortController;
  readonly beganAtMs: number;
  lane: Lane | null;
  /** The whole request has left. */
  isSent: boolean;
  frames: number;
  heardAtMs: number;
  cancelWatch: () => void;
  settle(outcome: Outcome<Uint8Array>): void;
}

/** Without one, every end of a call would make an exception with its stack. */
const callEnded = 'the call has ended';

interface Client {
  readonly options: RequestClientOptions;
  /** By peer and protocol. */
  readonly routes: Map<string, Route>;
  readonly calls: Set<Call>;
  isClosed: boolean;
}

export function createRequestClient(options: RequestClientOptions): RequestClient {
  const client: Client = { options, routes: new Map(), calls: new Set(), isClosed: false };
  return {
    async request(peer, protocol, body, signal, onFrame) {
      if (client.isClosed || signal?.aborted) return reject('aborted');
      if (body.length > protocol.requestBytesMax) return reject('too-large', 'the request');
      const route = routeTo(client, peer, protocol);
      if (route.calls >= requestsInFlightMax) return reject('refused', 'too many requests at once');
      return await new Promise((resolve) => {
        void run(client, route, begin(client, route, { protocol, signal, onFrame, resolve }), body);
      });
    },
    close() {
      client.isClosed = true;
      for (const call of [...client.calls]) call.settle(reject('aborted', 'the transport is closed'));
      for (const { pool } of [...client.routes.values()]) pool.close();
    },
  };
}

function routeTo({ options, routes }: Client, peer: NodeId, protocol: Protocol): Route {
  const key = `${peer} ${protocol.id}`;
  const existing = routes.get(key);
  if (existing) return existing;
  const pool = createStreamPool({
    clock: options.clock,
    protocol,
    openStream: (signal) => options.openStream(peer, protocol, signal),
    penalize: (code) => options.penalize(peer, code),
    onEmpty() {
      if (route.calls === 0) routes.delete(key);
    },
  });
  const route: Route = { pool, calls: 0 };
  routes.set(key, route);
  return route;
}

interface Asked {
  readonly protocol: Protocol;
  readonly signal: AbortSignal | undefined;
  readonly onFrame: Call['onFrame'];
  readonly resolve: (outcome: Outcome<Uint8Array>) => void;
}

/** From here on its deadline and its caller's signal can end it. */
function begin({ options, calls }: Client, route: Route, asked: Asked): Call {
  const { clock } = options;
  const { protocol, signal, onFrame, resolve } = asked;
  const cancelDeadline = clock.setTimer(protocol.timeoutMs, () => call.settle(reject('timeout')));
  const onAbort = () => call.settle(reject('aborted'));
  const call: Call = {
    protocol,
    onFrame,
    ended: new AbortController(),
    beganAtMs: clock.nowMs(),
    lane: null,
    isSent: false,
    frames: 0,
    heardAtMs: clock.nowMs(),
    cancelWatch: () => {},
    settle(outcome) {
      if (!calls.delete(call)) return;
      cancelDeadline();
      call.cancelWatch();
      signal?.removeEventListener('abort', onAbort);
      route.calls -= 1;
      call.ended.abort(callEnded);
      // Whoever has given up resets the stream, which tells the other side's handler.
      if (call.lane) {
        call.lane.user = null;
        call.lane.stream.end(reject('aborted'));
      }
      resolve(outcome);
    },
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  calls.add(call);
  route.calls += 1;
  return call;
}

async function run({ options }: Client, route: Route, call: Call, body: Uint8Array): Promise<void> {
  const { clock } = options;
  const taken = await route.pool.take(call.ended.signal);
  if (!taken.ok) return call.settle(taken);
  const lane = taken.value;
  if (call.ended.signal.aborted) return route.pool.giveBack(lane);
  lane.user = {
    admit: (kind, bodyBytes) => admit(clock, call, kind, bodyBytes),
    onFrame: (frame) => takeFrame(route, call, frame),
    onProgress() {
      call.heardAtMs = clock.nowMs();
    },
    onEnd: call.settle,
  };
  call.lane = lane;
  call.heardAtMs = clock.nowMs();
  watch(clock, call);
  await lane.stream.send('request', body);
  call.isSent = true;
}

/** Silence for the idle time ends the call. */
function watch(clock: Clock, call: Call): void {
  const { idleTimeoutMs } = call.protocol;
  const leftMs = call.heardAtMs + idleTimeoutMs - clock.nowMs();
  call.cancelWatch = clock.setTimer(Math.max(1, leftMs), () => {
    if (clock.nowMs() - call.heardAtMs >= idleTimeoutMs) call.settle(reject('stalled'));
    else watch(clock, call);
  });
}

/** Bounds what the other side may say while a call waits for its answer. */
function admit(clock: Clock, call: Call, kind: FrameKind, bodyBytes: number): Admission {
  const { protocol } = call;
  if (kind === 'progress' && protocol.frameBytesMax !== undefined) {
    call.frames += 1;
    if (call.frames > 2 * progressFramesMax(clock.nowMs() - call.beganAtMs)) {
      return reject('malformed', 'too many frames');
    }
    return within(bodyBytes, protocol.frameBytesMax, kind);
  }
  if (kind === 'response') return within(bodyBytes, protocol.responseBytesMax, kind);
  if (kind === 'rejection') return within(bodyBytes, rejectionBytesMax, kind);
  return reject('malformed', `a ${kind} where an answer is expected`);
}

function within(bodyBytes: number, bytesMax: number, kind: FrameKind): Admission {
  if (bodyBytes <= bytesMax) return 'take';
  return reject('too-large', `${kind} of ${bodyBytes} bytes, at most ${bytesMax}`);
}

function takeFrame(route: Route, call: Call, frame: Frame): void {
  if (frame.kind === 'progress') {
    call.onFrame?.(frame.body);
    return;
  }
  const { lane } = call;
  // An answer may come before the whole request has left; then the rest must not, and the stream is of no more use.
  if (lane && call.isSent) {
    call.lane = null;
    route.pool.giveBack(lane);
  }
  call.settle(frame.kind === 'response' ? accept(frame.body) : decodeRejection(frame.body));
}
