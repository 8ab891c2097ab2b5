/**
 * Candidates that gossip has not brought: where a stage has too few, asks the network's directory who provides it, and
 * each of those for its own announcement, which then counts as one from the topic does. It tells the directory of this
 * node's own stage, too. It judges no announcement and chooses no route.
 */
import { providedMs } from '../net/limits.ts';
import { stageProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { accept, reject } from '../std/outcome.ts';
import type { StageDirectory } from './directory.ts';

export interface StageLookupOptions {
  readonly directory: Pick<StageDirectory, 'candidates' | 'of' | 'said' | 'take'>;
  readonly transport: Transport;
  readonly clock: Clock;
  /** What a stage is called in the directory: another for every network, plan and stage. */
  readonly keyOf: (stage: number) => string;
}

export interface StageLookup {
  /** Those of the stage directory. When they are fewer than two, others are looked for meanwhile, with growing pauses. */
  candidates(stage: number): readonly NodeId[];
  close(): void;
}

/** One can be lost at any time. */
const candidatesWanted = 2;
const pauseMsMin = 2_000;
/** While nobody is known, and while one is. */
const starvingPauseMsMax = 15_000;
const pauseMsMax = 60_000;
/** How often it is told of this node: often at first, when few may be there to be told. */
const provideMsMin = 10_000;
const provideMsMax = providedMs / 4;

interface Search {
  isUnderWay: boolean;
  pauseMs: number;
  /** Not before. */
  nextMs: number;
}

export function createStageLookup(options: StageLookupOptions): StageLookup {
  const { directory, transport, clock, keyOf } = options;
  const searches = new Map<number, Search>();
  const closing = new AbortController();
  const stopServing = transport.handle(stageProtocol, async () => {
    const said = directory.said();
    return said ? accept(said) : reject('no-stage');
  });
  const stopProviding = provideOwn(options);

  const search = async (stage: number, state: Search) => {
    state.isUnderWay = true;
    const providers = await transport.findProviders(keyOf(stage), closing.signal);
    const known = new Set(directory.candidates(stage));
    await Promise.all(providers.filter((node) => !known.has(node)).map(ask));
    const isStarving = directory.candidates(stage).length === 0;
    state.isUnderWay = false;
    state.nextMs = clock.nowMs() + state.pauseMs;
    state.pauseMs = Math.min(2 * state.pauseMs, isStarving ? starvingPauseMsMax : pauseMsMax);
  };
  const ask = async (node: NodeId) => {
    const answer = await transport.request(node, stageProtocol, new Uint8Array(0), closing.signal);
    if (answer.ok && !closing.signal.aborted) directory.take(node, answer.value);
  };

  return {
    candidates: (stage) => {
      const known = directory.candidates(stage);
      const state = searches.get(stage) ?? { isUnderWay: false, pauseMs: pauseMsMin, nextMs: 0 };
      searches.set(stage, state);
      if (known.length >= candidatesWanted) state.pauseMs = pauseMsMin;
      else if (!state.isUnderWay && clock.nowMs() >= state.nextMs && !closing.signal.aborted)
        void search(stage, state);
      return known;
    },
    close: () => {
      closing.abort();
      stopServing();
      stopProviding();
    },
  };
}

/** Says again and again which stage this node serves, once it does. */
function provideOwn({ directory, transport, clock, keyOf }: StageLookupOptions): () => void {
  let pauseMs = provideMsMin;
  let isClosed = false;
  let cancel = () => {};
  const say = async () => {
    const own = directory.of(transport.self);
    if (own?.accepting) {
      await transport.provide(keyOf(own.stage));
      pauseMs = Math.min(2 * pauseMs, provideMsMax);
    }
    if (!isClosed) cancel = clock.setTimer(pauseMs, () => void say());
  };
  cancel = clock.setTimer(pauseMs / 10, () => void say());
  return () => {
    isClosed = true;
    cancel();
  };
}
