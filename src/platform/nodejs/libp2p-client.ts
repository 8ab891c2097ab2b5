/**
 * The asking side of request-response over libp2p: one kept-open stream for each peer and protocol, many exchanges on
 * it, deadlines and silence watched. It does not know how peers are found, only how to open a stream to one.
 */
import type { Stream } from '@libp2p/interface';
import { decodeRejection, type Frame, type FrameKind, rejectionBytesMax } from '../../net/frame.ts';
import { requestsInFlightMax } from '../../net/limits.ts';
import type { Protocol } from '../../net/protocol.ts';
import type { NodeId } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { type FrameStream, openFrameStream } from './libp2p-stream.ts';

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
  ): Promise<Outcome<Uint8Array>>;
  /** Ends everything in flight as `aborted`. */
  close(): void;
}

/** One request: `settle` ends it once and for all. */
interface Exchange {
  /** Its number on the stream, once it has been sent. */
  id: number | null;
  settled: boolean;
  settle(outcome: Outcome<Uint8Array>): void;
}

/** The stream to one peer for one protocol, and what is in flight on it. */
interface Channel {
  readonly peer: NodeId;
  readonly protocol: Protocol;
  readonly opening: Promise<Outcome<FrameStream>>;
  stream: FrameStream | null;
  /** Sent and not answered. */
  readonly sent: Map<number, Exchange>;
  nextId: number;
  /** Sent, or waiting for the stream to open. */
  inFlight: number;
  progressAtMs: number;
  cancelWatch: () => void;
}

export function createRequestClient(options: RequestClientOptions): RequestClient {
  const { clock } = options;
  const channels = new Map<string, Channel>();
  const exchanges = new Set<Exchange>();
  const closing = new AbortController();

  function channelTo(peer: NodeId, protocol: Protocol): Channel {
    const key = `${peer} ${protocol.id}`;
    const existing = channels.get(key);
    if (existing) return existing;
    const channel: Channel = {
      peer,
      protocol,
      opening: Promise.resolve().then(() => openChannel(channel, key)),
      stream: null,
      sent: new Map(),
      nextId: 1,
      inFlight: 0,
      progressAtMs: clock.nowMs(),
      cancelWatch: () => {},
    };
    channels.set(key, channel);
    return channel;
  }

  async function openChannel(channel: Channel, key: string): Promise<Outcome<FrameStream>> {
    const { peer, protocol } = channel;
    const timeout = AbortSignal.timeout(protocol.timeoutMs);
    const opened = await options.openStream(peer, protocol, AbortSignal.any([timeout, closing.signal]));
    if (!opened.ok) {
      channels.delete(key);
      return opened;
    }
    const stream = openFrameStream(opened.value, {
      clock,
      idleTimeoutMs: protocol.idleTimeoutMs,
      frameTimeoutMs: protocol.timeoutMs,
      bodyBytesMax: (kind) => answerBytesMax(protocol, kind),
      onFrame: (frame) => takeAnswer(channel, frame),
      onProgress: () => {
        channel.progressAtMs = clock.nowMs();
      },
      onEnd(reason) {
        if (channels.get(key) === channel) channels.delete(key);
        channel.cancelWatch();
        if (reason.code === 'malformed' || reason.code === 'too-large') options.penalize(peer, reason.code);
        for (const exchange of [...channel.sent.values()]) exchange.settle(reason);
      },
    });
    channel.stream = stream;
    return accept(stream);
  }

  function takeAnswer(channel: Channel, frame: Frame): void {
    if (frame.kind !== 'response' && frame.kind !== 'rejection') {
      channel.stream?.end(reject('malformed', `a ${frame.kind} where answers are expected`));
      return;
    }
    // An exchange that is not there is one we gave up before its answer came.
    const outcome = frame.kind === 'response' ? accept(frame.body) : decodeRejection(frame.body);
    channel.sent.get(frame.exchange)?.settle(outcome);
  }

  /** While something is in flight, silence for the idle time ends the stream. */
  function watch(channel: Channel): void {
    channel.cancelWatch();
    if (channel.sent.size === 0) return;
    const { idleTimeoutMs } = channel.protocol;
    const leftMs = channel.progressAtMs + idleTimeoutMs - clock.nowMs();
    channel.cancelWatch = clock.setTimer(Math.max(1, leftMs), () => {
      if (clock.nowMs() - channel.progressAtMs >= idleTimeoutMs) channel.stream?.end(reject('stalled'));
      else watch(channel);
    });
  }

  function begin(
    channel: Channel,
    signal: AbortSignal | undefined,
    resolve: (outcome: Outcome<Uint8Array>) => void,
  ): Exchange {
    const cancelDeadline = clock.setTimer(channel.protocol.timeoutMs, () =>
      exchange.settle(reject('timeout')),
    );
    const onAbort = () => exchange.settle(reject('aborted'));
    const exchange: Exchange = {
      id: null,
      settled: false,
      settle(outcome) {
        if (exchange.settled) return;
        exchange.settled = true;
        cancelDeadline();
        signal?.removeEventListener('abort', onAbort);
        exchanges.delete(exchange);
        channel.inFlight -= 1;
        if (exchange.id !== null) forget(channel, exchange.id, outcome);
        resolve(outcome);
      },
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    exchanges.add(exchange);
    channel.inFlight += 1;
    return exchange;
  }

  function forget(channel: Channel, id: number, outcome: Outcome<Uint8Array>): void {
    channel.sent.delete(id);
    watch(channel);
    const gaveUp = !outcome.ok && (outcome.code === 'aborted' || outcome.code === 'timeout');
    if (gaveUp && channel.stream?.isOpen) void channel.stream.send(id, 'cancel', new Uint8Array(0));
  }

  async function send(channel: Channel, exchange: Exchange, body: Uint8Array): Promise<void> {
    const opened = await channel.opening;
    if (!opened.ok) exchange.settle(opened);
    else if (!opened.value.isOpen) exchange.settle(reject('unreachable', 'the stream closed'));
    if (!opened.ok || exchange.settled) return;
    exchange.id = channel.nextId;
    channel.nextId = (channel.nextId + 1) >>> 0;
    if (channel.sent.size === 0) channel.progressAtMs = clock.nowMs();
    channel.sent.set(exchange.id, exchange);
    watch(channel);
    await opened.value.send(exchange.id, 'request', body);
  }

  return {
    async request(peer, protocol, body, signal) {
      if (closing.signal.aborted || signal?.aborted) return reject('aborted');
      if (body.length > protocol.requestBytesMax) return reject('too-large', 'the request');
      const channel = channelTo(peer, protocol);
      if (channel.inFlight >= requestsInFlightMax) return reject('refused', 'too many requests at once');
      return await new Promise((resolve) => {
        void send(channel, begin(channel, signal, resolve), body);
      });
    },
    close() {
      closing.abort();
      for (const exchange of [...exchanges]) exchange.settle(reject('aborted', 'the transport is closed'));
      for (const channel of channels.values()) channel.stream?.end(reject('aborted'));
    },
  };
}

function answerBytesMax(protocol: Protocol, kind: FrameKind): number {
  if (kind === 'response') return protocol.responseBytesMax;
  return kind === 'rejection' ? rejectionBytesMax : 0;
}
