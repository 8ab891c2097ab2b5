/**
 * Serves the decode sessions of this node's stage to peers: size, schema and place are checked here, the values by the
 * stage. While it works it says so. It keeps no sessions itself and decides nothing about routes.
 */
import type { DecodeResult } from '../model/decode-call.ts';
import { decodeProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import {
  type DecodeRequest,
  decodeDecodeRequest,
  type EntryKind,
  encodeOpened,
  encodeResults,
  type WireCall,
} from './decode-messages.ts';
import type { DecodeService } from './decode-service.ts';
import { frameMs, sendFrames } from './frames.ts';
import type { ServiceMeter } from './payment.ts';

export interface DecodeServerOptions {
  readonly service: DecodeService;
  /** Number of the stage in the cut. */
  readonly stage: number;
  readonly entries: EntryKind;
  readonly transport: Transport;
  readonly clock: Clock;
  /** Without it everybody is served for nothing. */
  readonly meter?: ServiceMeter;
}

/** What no honest caller sends. */
const blamed = new Set(['malformed', 'not-canonical', 'too-large', 'wrong-shape']);

/** The result ends the serving, not the sessions. */
export function serveDecode(options: DecodeServerOptions): () => void {
  const { transport, service, entries } = options;
  const stopHandling = transport.handle(decodeProtocol, async (from, message, signal, progress) => {
    const request = decodeDecodeRequest(message, entries);
    if (!request.ok) {
      if (blamed.has(request.code)) transport.penalize(from, request.code);
      return request;
    }
    const frames = framesLater(options, progress);
    try {
      return await answer(options, from, request.value, signal, frames.moved);
    } finally {
      frames.stop();
    }
  });
  const stopWatching = transport.onPeerChange((peer, connected) => {
    // What cannot be ended (the compute worker is gone) is gone already.
    if (!connected) service.closeOwner(peer).catch(() => undefined);
  });
  return () => {
    stopHandling();
    stopWatching();
  };
}

/** Most answers are there before the first frame is due, and are sign of life enough: a frame costs as much as they. */
function framesLater({ clock, service }: DecodeServerOptions, send: (frame: Uint8Array) => void) {
  let frames: ReturnType<typeof sendFrames> | undefined;
  let moves = 0;
  const cancel = clock.setTimer(frameMs, () => {
    frames = sendFrames({ clock, send, queueDepth: () => service.stats().waiting });
    for (; moves > 0; moves--) frames.moved();
  });
  return {
    moved: () => {
      if (frames) frames.moved();
      else moves += 1;
    },
    stop: () => {
      cancel();
      frames?.stop();
    },
  };
}

async function answer(
  options: DecodeServerOptions,
  from: NodeId,
  request: DecodeRequest,
  signal: AbortSignal,
  moved: () => void,
): Promise<Outcome<Uint8Array>> {
  const { service, stage } = options;
  if (request.stage !== stage) return reject('wrong-stage', `this is stage ${stage}`);
  if (request.kind === 'close') {
    await service.close(from, request.sessions);
    return accept(new Uint8Array(0));
  }
  if (request.kind === 'open') {
    const opened = await service.open(from, request);
    return opened.ok ? accept(encodeOpened(opened.value)) : opened;
  }
  const outcomes = await runPaid(options, from, request.calls, { signal, moved });
  return accept(
    encodeResults(
      outcomes,
      request.calls.map(({ wanted }) => wanted),
    ),
  );
}

/** Runs the calls that the meter admits: those after a session's first refused one would be out of order. */
async function runPaid(
  { service, entries, meter }: DecodeServerOptions,
  from: NodeId,
  calls: readonly WireCall[],
  options: { readonly signal: AbortSignal; readonly moved: () => void },
): Promise<readonly Outcome<DecodeResult>[]> {
  if (!meter) return service.run(from, calls, options);
  const positions = ({ entry }: WireCall) => entry.length / (entries.embedding ? 1 : entries.width);
  const refusals = new Map<string, Outcome<DecodeResult>>();
  const admitted = calls.map((call) => {
    const taken = refusals.get(call.session) ?? meter.take(from, positions(call));
    if (!taken.ok) refusals.set(call.session, taken);
    return taken.ok ? undefined : taken;
  });
  const paid = calls.filter((_, i) => !admitted[i]);
  const ran = paid.length > 0 ? await service.run(from, paid, options) : [];
  for (const [i, outcome] of ran.entries()) if (!outcome.ok) meter.giveBack(from, positions(paid[i]!));
  let next = 0;
  return admitted.map((refused) => refused ?? ran[next++]!);
}
