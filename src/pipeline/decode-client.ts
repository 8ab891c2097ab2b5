/**
 * The caller's side of decoding: a session through all stages, each at one replica, and what happens when that one hangs.
 * The inputs of every stage are kept with the shapes they were computed in, so another replica can be brought to the same
 * state bit for bit. It samples nothing and knows no text.
 */
import type { ModelConfig } from '../model/config.ts';
import { chunkTokens, type DecodeResult } from '../model/decode-call.ts';
import type { OpenedSession } from '../model/decode-host.ts';
import type { StageSpec } from '../model/parameters.ts';
import type { NodeId } from '../net/transport.ts';
import { assert } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import { sleep } from '../std/clock.ts';
import { CodedError, type Outcome, reject } from '../std/outcome.ts';
import type { Random } from '../std/random.ts';
import { sessionIdBytes, type WireCall } from './decode-messages.ts';
import { type DecodePlace, localPlace, remotePlace } from './decode-place.ts';
import type { DecodeService } from './decode-service.ts';
import { paymentRequired, type ServicePayer } from './payment.ts';
import type { WatchedRequestOptions } from './watched-request.ts';

export interface DecodeClientOptions extends WatchedRequestOptions {
  readonly config: ModelConfig;
  /** The cut, in order. */
  readonly stages: readonly StageSpec[];
  readonly random: Random;
  /** Peers that hold the stage and take work; never this node. */
  readonly candidates: (stage: number) => readonly NodeId[];
  /** This node's own stage, preferred where it is in turn. */
  readonly local?: { readonly stage: number; readonly service: DecodeService };
  readonly onFailover?: (failover: DecodeFailover) => void;
  /** Pays the peers that serve; without it nobody is paid. */
  readonly payer?: ServicePayer;
}

/** A session went on at another replica. */
export interface DecodeFailover {
  readonly stage: number;
  readonly from: NodeId;
  readonly to: NodeId;
  readonly code: string;
  /** From the start of the call that failed until the replacement was ready for it. */
  readonly tookMs: number;
  /** Calls that were computed again. */
  readonly replayed: number;
  /** Whether what was computed again came out the same to the last bit. */
  readonly exact: boolean;
}

export interface DecodeClient {
  /**
   * A session at every stage, pinned to one round. Throws CodedError `busy`, `cache-full` (alive, and no room), `no-route`
   * (a stage that nobody answers for), `round-gone` (the stages share no round just now), or the signal's reason.
   */
  open(signal?: AbortSignal): Promise<DecodeSession>;
}

export interface DecodeSession {
  readonly round: number;
  readonly length: number;
  /** Longest sequence in tokens. */
  readonly capacity: number;
  /** Whom it uses now, by stage. */
  readonly route: readonly NodeId[];
  /**
   * Appends tokens and gives the last one's logits [V]. Throws CodedError `context-full` and `bad-token` (nothing was
   * changed), `no-route`, `round-gone`, `payment-required`, … (the session is of no more use), or the signal's reason. One call at a time.
   */
  append(tokens: Int32Array, signal?: AbortSignal): Promise<Float32Array>;
  /** Ends it at every stage, as well as they can be reached. */
  close(): Promise<void>;
}

/** Alive, and not for us now. */
const refusing = new Set(['busy', 'cache-full', 'round-gone', 'refused', 'wrong-stage', 'shape-unavailable']);
/** Every replica would say the same. */
const final = new Set(['context-full', 'bad-token', 'wrong-shape', 'too-large']);

/** A stage without any replica is waited for. */
const noRouteMs = 10_000;
const backoffMsMin = 10;
const backoffMsMax = 500;
/** Replicas given up for one call. */
const failoversMax = 8;
/** A callee that nobody can stand in for is waited for longer. */
const onlyOnePatience = 10;
/** Rounds tried until the stages have one in common. */
const openingsMax = 12;
const openingPauseMs = 250;

interface ClientState {
  readonly options: DecodeClientOptions;
  /** By stage and node: sessions that go to the same peer share its messages. */
  readonly places: Map<string, DecodePlace>;
}

/** One stage of a session. */
interface Leg {
  readonly stage: number;
  place: DecodePlace;
  session: string;
  /** In order, everything the replica has computed. */
  readonly kept: WireCall[];
  lastOutput: Float32Array | undefined;
  /** Calls of one leg go one after another. */
  tail: Promise<unknown>;
}

interface Opened {
  readonly leg: Leg;
  readonly opened: OpenedSession;
}

export function createDecodeClient(options: DecodeClientOptions): DecodeClient {
  const state: ClientState = { options, places: new Map() };
  return { open: (signal) => openSession(state, signal) };
}

const placesMax = 1024;

function placeOf(state: ClientState, stage: number, node: NodeId): DecodePlace {
  const { options, places } = state;
  const { local, transport, config, stages } = options;
  const key = `${stage} ${node}`;
  const known = places.get(key);
  if (known) return known;
  const { head, embedding } = stages[stage]!;
  const place =
    node === transport.self && local
      ? localPlace(node, local.service)
      : remotePlace({
          ...options,
          node,
          stage,
          positionLength: embedding ? 1 : config.width,
          outputLength: (length) => (head ? config.vocabulary : length * (embedding ? config.width : 1)),
        });
  places.set(key, place);
  if (places.size > placesMax) places.delete(places.keys().next().value!);
  return place;
}

function candidatesOf({ options }: ClientState, stage: number): readonly NodeId[] {
  const { local, transport, candidates } = options;
  return local?.stage === stage ? [transport.self, ...candidates(stage)] : candidates(stage);
}

function patienceFor(state: ClientState, leg: Pick<Leg, 'stage' | 'place'>): number {
  const others = candidatesOf(state, leg.stage).some((node) => node !== leg.place.node);
  return others ? 1 : onlyOnePatience;
}

function withSignal(signal: AbortSignal | undefined, patience: () => number) {
  return signal ? { signal, patience } : { patience };
}

/** Opens a session at one replica of the stage, trying all that may be, and waiting for one where there is none. */
async function openAt(
  state: ClientState,
  stage: number,
  round: number | undefined,
  tried: Set<NodeId>,
  signal: AbortSignal | undefined,
): Promise<Outcome<Opened>> {
  const { clock, router, random, transport } = state.options;
  const untilMs = clock.nowMs() + noRouteMs;
  let waitMs = backoffMsMin;
  let refused: Outcome<never> | undefined;
  for (;;) {
    signal?.throwIfAborted();
    const node = router.choose(candidatesOf(state, stage), { sticky: transport.self, exclude: tried });
    if (node === undefined) {
      if (refused) return refused;
      if (clock.nowMs() >= untilMs) return reject('no-route', `nobody answers for stage ${stage + 1}`);
      await sleep(clock, waitMs, signal);
      waitMs = Math.min(2 * waitMs, backoffMsMax);
      tried.clear();
      continue;
    }
    const place = placeOf(state, stage, node);
    const session = newSessionId(random);
    const patience = () => patienceFor(state, { stage, place });
    const opened = await place.open(session, round, withSignal(signal, patience));
    if (opened.ok) {
      const leg = { stage, place, session, kept: [], lastOutput: undefined, tail: Promise.resolve() };
      return { ok: true, value: { leg, opened: opened.value } };
    }
    signal?.throwIfAborted();
    tried.add(node);
    if (refusing.has(opened.code)) refused = opened;
    else router.penalise(node);
  }
}

function newSessionId(random: Random): string {
  const words = Uint32Array.from({ length: sessionIdBytes / 4 }, () => random.uint32());
  return toHex(new Uint8Array(words.buffer));
}

async function openSession(state: ClientState, signal: AbortSignal | undefined): Promise<DecodeSession> {
  const { stages, clock } = state.options;
  let refused: Outcome<unknown> = reject('no-route');
  let round: number | undefined;
  for (let opening = 0; opening < openingsMax; opening++) {
    const first = await openAt(state, 0, round, new Set(), signal);
    if (!first.ok) throw new CodedError(first.code, describe(first));
    const pinned = first.value.opened.round;
    const rest = await Promise.all(
      stages.slice(1).map((_, i) => openAt(state, i + 1, pinned, new Set(), signal)),
    );
    const all = [first, ...rest];
    const opened = all.flatMap((one) => (one.ok ? [one.value] : []));
    if (opened.length === stages.length) return sessionOf(state, pinned, opened);
    await Promise.all(opened.map(({ leg }) => leg.place.close(leg.session)));
    refused = all.find((one) => !one.ok)!;
    if (refused.ok || refused.code !== 'round-gone') break;
    // Replicas keep the round before theirs: one that is behind agrees to it, and so do those that are ahead.
    if (round === undefined && pinned > 0) round = pinned - 1;
    else {
      round = undefined;
      await sleep(clock, openingPauseMs, signal);
    }
  }
  if (refused.ok) throw new CodedError('no-route', 'no session');
  throw new CodedError(refused.code, describe(refused));
}

function describe(refused: { readonly code: string; readonly detail: string }): string {
  return refused.detail ? `${refused.code}: ${refused.detail}` : refused.code;
}

interface Chunk {
  readonly position: number;
  readonly isLast: boolean;
  /** No other chunk is under way. */
  readonly isAlone: boolean;
}

function afterOthers<T>(leg: Leg, run: () => Promise<T>): Promise<T> {
  const turn = leg.tail.then(run);
  leg.tail = turn.catch(() => undefined);
  return turn;
}

function sessionOf(state: ClientState, round: number, opened: readonly Opened[]): DecodeSession {
  const { config } = state.options;
  const legs = opened.map(({ leg }) => leg);
  const capacity = Math.min(...opened.map(({ opened }) => opened.capacity));
  let length = 0;
  let isRunning = false;
  let isBroken = false;

  /** One chunk through all stages; chunks follow one another at a distance of one stage. */
  const through = async (tokens: Int32Array, { position, isLast, isAlone }: Chunk, signal?: AbortSignal) => {
    let entry: Int32Array | Float32Array = tokens;
    for (const leg of legs) {
      const wanted = leg !== legs.at(-1) || isLast;
      const call: WireCall = { session: leg.session, position, entry, wanted };
      const run = (): Promise<Float32Array> => {
        if (isBroken) throw new CodedError('no-route', 'an earlier part of the text has failed');
        return runLeg(state, leg, call, round, signal);
      };
      try {
        entry = await (isAlone ? run() : afterOthers(leg, run));
      } catch (error) {
        isBroken = true;
        throw error;
      }
    }
    return entry as Float32Array;
  };

  return {
    round,
    capacity,
    get route() {
      return legs.map(({ place }) => place.node);
    },
    get length() {
      return length;
    },
    async append(tokens, signal) {
      assert(!isRunning && tokens.length > 0, 'one call at a time, of one token at least');
      if (isBroken) throw new CodedError('no-route', 'the session has failed');
      if (length + tokens.length > capacity)
        throw new CodedError('context-full', `${length + tokens.length} tokens, at most ${capacity}`);
      const wrong = tokens.find((token) => token < 0 || token >= config.vocabulary);
      if (wrong !== undefined) throw new CodedError('bad-token', `token ${wrong} of ${config.vocabulary}`);
      isRunning = true;
      try {
        const chunks: Promise<Float32Array>[] = [];
        const isAlone = tokens.length <= chunkTokens;
        for (let done = 0; done < tokens.length; done += chunkTokens) {
          const chunk = tokens.slice(done, done + chunkTokens);
          const isLast = done + chunk.length === tokens.length;
          chunks.push(through(chunk, { position: length + done, isLast, isAlone }, signal));
        }
        // The first failure is the one to tell: the others follow from it.
        if (!isAlone) await Promise.allSettled(chunks);
        for (const chunk of chunks) await chunk;
        length += tokens.length;
        return await chunks.at(-1)!;
      } finally {
        isRunning = false;
      }
    },
    async close() {
      isBroken = true;
      await Promise.all(legs.map(({ place, session }) => place.close(session)));
    },
  };
}

/** One call at one stage, at another replica if need be. */
async function runLeg(
  state: ClientState,
  leg: Leg,
  call: WireCall,
  round: number,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const { clock } = state.options;
  let waitMs = backoffMsMin;
  for (let failures = 0; ; ) {
    signal?.throwIfAborted();
    const current = { ...call, session: leg.session };
    const startedMs = clock.nowMs();
    const outcome: Outcome<DecodeResult> = await leg.place.run(
      current,
      withSignal(signal, () => patienceFor(state, leg)),
    );
    if (outcome.ok) {
      leg.kept.push({ ...call, shape: outcome.value.shape });
      leg.lastOutput = call.wanted ? outcome.value.output : undefined;
      return outcome.value.output;
    }
    signal?.throwIfAborted();
    if (final.has(outcome.code) || failures >= failoversMax)
      throw new CodedError(outcome.code, describe(outcome));
    if (outcome.code === 'busy' && waitMs < backoffMsMax) {
      await sleep(clock, waitMs, signal);
      waitMs *= 2;
      continue;
    }
    // Nobody else holds the stage, and who does wants money that there is not.
    if (outcome.code === paymentRequired && patienceFor(state, leg) > 1)
      throw new CodedError(outcome.code, describe(outcome));
    failures += 1;
    await failOver(state, leg, round, { code: outcome.code, startedMs }, signal);
  }
}

/** Brings another replica of the leg's stage (or the same, where it is the only one) to where the session is. */
async function failOver(
  state: ClientState,
  leg: Leg,
  round: number,
  { code, startedMs }: { readonly code: string; readonly startedMs: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { clock, router, onFailover } = state.options;
  const from = leg.place.node;
  void leg.place.close(leg.session);
  router.penalise(from);
  const tried = new Set([from]);
  let last = code;
  for (let attempt = 0; attempt < failoversMax; attempt++) {
    const opened = await openAt(state, leg.stage, round, tried, signal);
    if (!opened.ok) throw new CodedError(opened.code, describe(opened));
    const { place, session } = opened.value.leg;
    const again = leg.kept.map((call, i) => ({
      ...call,
      session,
      wanted: i === leg.kept.length - 1 && leg.lastOutput !== undefined,
    }));
    const patience = () => patienceFor(state, { stage: leg.stage, place });
    const replayed: Outcome<DecodeResult> | undefined =
      again.length > 0 ? await place.replay(again, withSignal(signal, patience)) : undefined;
    if (!replayed || replayed.ok) {
      leg.place = place;
      leg.session = session;
      const exact = !leg.lastOutput || sameBits(leg.lastOutput, replayed?.value.output);
      const tookMs = clock.nowMs() - startedMs;
      onFailover?.({ stage: leg.stage, from, to: place.node, code, tookMs, replayed: again.length, exact });
      return;
    }
    signal?.throwIfAborted();
    void place.close(session);
    tried.add(place.node);
    router.penalise(place.node);
    last = replayed.code;
  }
  const why = last === paymentRequired ? paymentRequired : 'no-route';
  throw new CodedError(why, `stage ${leg.stage + 1} fails again and again (${last})`);
}

function sameBits(a: Float32Array, b: Float32Array | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((value, i) => Object.is(value, b[i]));
}
