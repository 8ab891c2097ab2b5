/**
 * Serves a stage to the stages before it: microbatches, the two passes of a step, held-out batches. Everything that
 * comes is checked here, in order: size, schema, place, claim, rows. It decides nothing about routes.
 */
import { evaluateProtocol, stepProtocol, trainProtocol } from '../net/protocol.ts';
import type { NodeId, RequestHandler, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { inTurn } from '../std/in-turn.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { sendFrames } from './frames.ts';
import {
  type BoundaryShape,
  decodeEvaluateRequest,
  decodeStepRequest,
  decodeTrainRequest,
  encodeLoss,
  encodeSums,
  encodeTrainAnswer,
  type StepPlace,
  type StepRequest,
  type TrainRequest,
} from './messages.ts';
import type { NormGuard } from './norm-guard.ts';
import { type PathUse, pathToYield } from './path-shares.ts';
import { decodeRows, encodeRows } from './row-codec.ts';
import { rootMeanSquare } from './row-norm.ts';
import { checkReceipt, type ServingNode, sealAnswer, sealSums } from './served-seals.ts';
import {
  applyStep,
  evaluateStage,
  type Microbatch,
  openPath,
  type Path,
  prepareStep,
  runMicrobatch,
  type StepTaken,
} from './stage-node.ts';

export interface StageServerOptions {
  readonly node: ServingNode;
  /** The first stage serves nobody. */
  readonly shape: BoundaryShape;
  readonly transport: Transport;
  readonly clock: Clock;
  /** Of the rows that come. */
  readonly guard: NormGuard;
  /** Whether this node trains in the round now; else why not: `wrong-round` (not yet), `past-round`, `round-over`. */
  readonly admits: (round: number) => Outcome<void>;
  readonly learningRate: (round: number, step: number) => number;
  /** The Driver whose claim it is, once checked: `bad-claim`, `wrong-batch`, `wrong-labels`, `convicted`. */
  readonly checkClaim: (request: TrainRequest) => Promise<Outcome<NodeId>>;
  /** Drivers that nobody works for any more, whatever they ask; none where it is not given. */
  readonly isConvicted?: (node: NodeId) => boolean;
  /** Members' Drivers come first where there is no room for all; nobody is one where it is not given. */
  readonly isMember?: (node: NodeId) => boolean;
  /** A step was taken for a Driver. */
  readonly onStep: (step: StepTaken) => void;
}

export interface StageServer {
  /** Ends all paths: the round is over here. */
  reset(): Promise<void>;
  /** Ends the paths of one Driver, and forgets what was summed for it. */
  drop(driver: NodeId): Promise<void>;
  /** Drivers served in this round, with the last step taken for each (−1: none yet) and when it was heard of. */
  drivers(): ReadonlyMap<NodeId, { readonly step: number; readonly heardMs: number }>;
  close(): void;
}

/** Pairs of caller and Driver served at a time; how they share the places: `path-shares.ts`. */
export const pathsMax = 8;

interface ServedPath extends PathUse {
  readonly path: Path;
  heardMs: number;
  takenMs: number;
}

interface Serving {
  readonly options: StageServerOptions;
  readonly paths: Map<string, ServedPath>;
  /** Paths whose sums are being given back. */
  ending: number;
  /** By caller; forgotten with the round. */
  readonly turns: Map<NodeId, ReturnType<typeof inTurn>>;
  readonly running: Map<string, { readonly cancel: () => void; readonly done: Promise<unknown> }>;
  readonly drivers: Map<NodeId, { step: number; heardMs: number }>;
  /** Drivers whose step is being taken. */
  readonly taking: Set<NodeId>;
}

export function serveStage(options: StageServerOptions): StageServer {
  const { transport } = options;
  const serving: Serving = {
    options,
    paths: new Map(),
    ending: 0,
    turns: new Map(),
    running: new Map(),
    drivers: new Map(),
    taking: new Set(),
  };
  const stops = [
    transport.handle(trainProtocol, withFrames(serving, train)),
    transport.handle(stepProtocol, withFrames(serving, step)),
    transport.handle(evaluateProtocol, withFrames(serving, evaluate)),
  ];
  return {
    reset: async () => {
      for (const { cancel } of serving.running.values()) cancel();
      await Promise.all([...serving.running.values()].map(({ done }) => done));
      for (const name of serving.paths.keys()) await options.node.compute.discard({ path: name });
      serving.paths.clear();
      serving.turns.clear();
      serving.drivers.clear();
    },
    drop: async (driver) => {
      serving.drivers.delete(driver);
      const served = [...serving.paths.values()].filter(({ path }) => path.driver === driver);
      for (const { path } of served) await endPath(serving, path.name);
    },
    drivers: () => serving.drivers,
    close: () => {
      for (const stop of stops) stop();
      for (const { cancel } of serving.running.values()) cancel();
    },
  };
}

/** Its place is free once its sum is: until then it counts as `ending`. */
async function endPath(serving: Serving, name: string): Promise<void> {
  const { options, paths, running } = serving;
  paths.delete(name);
  serving.ending += 1;
  try {
    const atWork = [...running].filter(([one]) => one.startsWith(`${name}/`));
    for (const [, { cancel }] of atWork) cancel();
    await Promise.all(atWork.map(([, { done }]) => done));
    await options.node.compute.discard({ path: name });
  } finally {
    serving.ending -= 1;
  }
}

interface Call {
  readonly from: NodeId;
  readonly message: Uint8Array;
  readonly signal: AbortSignal;
  readonly moved: () => void;
}

/** Says every so often that work goes on, from the first byte understood to the answer. */
function withFrames(
  serving: Serving,
  answer: (serving: Serving, call: Call) => Promise<Outcome<Uint8Array>>,
): RequestHandler {
  const { clock, node } = serving.options;
  return async (from, message, signal, progress) => {
    const { depth } = node.queue.stats();
    const queueDepth = () => depth.decode + depth.backward + depth.forward;
    const frames = sendFrames({ clock, send: progress, queueDepth });
    try {
      return await answer(serving, { from, message, signal, moved: frames.moved });
    } finally {
      frames.stop();
    }
  };
}

async function train(serving: Serving, call: Call): Promise<Outcome<Uint8Array>> {
  const { node, shape, transport } = serving.options;
  const decoded = decodeTrainRequest(call.message, shape);
  if (!decoded.ok) return blame(transport, call.from, decoded);
  const request = decoded.value;
  const admitted = admit(serving, request);
  if (!admitted.ok) return admitted;
  // In the order they came, or gradients would be summed in another order at every run.
  const begun = await turnOf(serving, call.from)(() => begin(serving, call.from, request));
  if (!begun.ok) return begun;
  const { path, microbatch } = begun.value;
  const { index } = microbatch;
  const result = await superseding(serving, `${path.name}/${index}`, call.signal, async (signal) => {
    // It gave way to another while its microbatch was waiting for its turn.
    if (!isServed(serving, path)) return reject('busy');
    path.received.delete(index);
    await node.compute.discard({ path: path.name, ids: [String(index)] });
    return runMicrobatch(node, path, microbatch, signal, call.moved);
  });
  // Put out in the middle: the caller may try again, here too.
  if (!result.ok) return call.signal.aborted || isServed(serving, path) ? result : reject('busy');
  const { loss, inputGradient } = result.value;
  if (!inputGradient) return reject('wrong-stage');
  const gradient = encodeRows(inputGradient, shape.codec);
  const seal = sealAnswer(node, path, call.from, { index, rows: request.rows, gradient });
  return accept(encodeTrainAnswer({ loss, seal, rows: gradient }));
}

function isServed({ paths }: Serving, path: Path): boolean {
  return paths.get(path.name)?.path === path;
}

function turnOf({ turns }: Serving, caller: NodeId): ReturnType<typeof inTurn> {
  const turn = turns.get(caller) ?? inTurn();
  turns.set(caller, turn);
  return turn;
}

interface Begun {
  readonly path: Path;
  readonly microbatch: Microbatch;
}

/** Claim, rows and path of a microbatch. */
async function begin(serving: Serving, from: NodeId, request: TrainRequest): Promise<Outcome<Begun>> {
  const { shape, guard, checkClaim, transport } = serving.options;
  const driver = await checkClaim(request);
  if (!driver.ok) return driver;
  const rows = decodeRows(request.rows, shape.codec, shape.tokens * shape.width);
  if (!rows.ok) return blame(transport, from, rows);
  // Who was away, or used another replica, comes back with weights that have moved on.
  const known = serving.paths.get(`${from}/${driver.value}`)?.path;
  if (!known || request.step > known.step + 1) guard.reset();
  // Refused, and nobody is to blame: honest training has such leaps, too.
  const normal = guard.check(rootMeanSquare(rows.value));
  if (!normal.ok) return normal;
  const path = await pathFor(serving, from, driver.value, request);
  if (!path.ok) return path;
  const { index, labels, claim } = request;
  return accept({ path: path.value, microbatch: { index, labels, claim, entry: rows.value } });
}

function blame<T>(transport: Transport, from: NodeId, refused: Outcome<T>): Outcome<never> {
  if (refused.ok) throw new Error('nobody is to blame');
  transport.penalize(from, refused.code);
  return refused;
}

function admit({ options }: Serving, place: Pick<StepPlace, 'round' | 'stage'>): Outcome<void> {
  return place.stage === options.node.stage ? options.admits(place.round) : reject('wrong-stage');
}

/** The path of this caller and Driver at this step; what was left of earlier steps is forgotten. */
async function pathFor(
  serving: Serving,
  from: NodeId,
  driver: NodeId,
  { round, step }: StepPlace,
): Promise<Outcome<Path>> {
  const { node, clock, isMember } = serving.options;
  const name = `${from}/${driver}`;
  const served = serving.paths.get(name);
  const known = served?.path;
  // A Driver that was started again may have lost a step that counts here: not twice.
  const isStale = known?.round === round && (known.step > step || (known.step === step && known.taken));
  const use = { caller: from, isMember: isMember?.(driver) ?? false };
  while (!served && serving.paths.size + serving.ending >= pathsMax) {
    const ended = endOne(serving, use);
    if (!ended) return reject('busy');
    await ended;
  }
  const heardMs = clock.nowMs();
  if (served) served.heardMs = heardMs;
  serving.drivers.set(driver, { step: serving.drivers.get(driver)?.step ?? -1, heardMs });
  if (isStale || node.records?.has({ driver, round, step })) return reject('stale-step');
  if (known?.round === round && known.step === step) return accept(known);
  const path = openPath(node, { name, driver, round, step }, known);
  const takenMs = served?.takenMs ?? Number.NEGATIVE_INFINITY;
  serving.paths.set(name, { ...use, path, heardMs, takenMs });
  if (known) await node.compute.discard({ path: name });
  return accept(path);
}

/**
 * Ends the path that gives way to a new one; undefined when none does. What was summed on it is lost, and its caller may
 * ask again like anyone.
 */
function endOne(serving: Serving, wanted: Pick<PathUse, 'caller' | 'isMember'>): Promise<void> | undefined {
  const { paths, running, drivers, options } = serving;
  const nowMs = options.clock.nowMs();
  const atWork = new Set([...running.keys()].map((one) => one.slice(0, one.lastIndexOf('/'))));
  const uses = [...paths].map(([name, one]) => (atWork.has(name) ? { ...one, heardMs: nowMs } : one));
  const yielding = pathToYield(uses, wanted, nowMs)?.path;
  // Who never took a step holds nothing up any more.
  if (yielding && drivers.get(yielding.driver)?.step === -1) drivers.delete(yielding.driver);
  return yielding && endPath(serving, yielding.name);
}

/** Runs a microbatch under its name; one that comes again (its caller gave up, and came back) replaces the first. */
async function superseding<T>(
  serving: Serving,
  name: string,
  signal: AbortSignal,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  for (let before = serving.running.get(name); before; before = serving.running.get(name)) {
    before.cancel();
    await before.done;
  }
  const controller = new AbortController();
  const cancel = () => controller.abort();
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel, { once: true });
  const done = run(controller.signal);
  serving.running.set(name, { cancel, done: done.catch(() => {}) });
  try {
    return await done;
  } finally {
    serving.running.delete(name);
    signal.removeEventListener('abort', cancel);
  }
}

async function step(serving: Serving, call: Call): Promise<Outcome<Uint8Array>> {
  const { transport } = serving.options;
  const decoded = decodeStepRequest(call.message);
  if (!decoded.ok) return blame(transport, call.from, decoded);
  const request = decoded.value;
  const admitted = admit(serving, request);
  if (!admitted.ok) return admitted;
  if (serving.options.isConvicted?.(request.driver)) return reject('convicted');
  const served = serving.paths.get(`${call.from}/${request.driver}`);
  const path = served?.path;
  if (path?.round !== request.round || path.step !== request.step) return reject('unknown-path');
  if (served) served.heardMs = serving.options.clock.nowMs();
  return takePass(serving, path, request, call);
}

async function takePass(
  serving: Serving,
  path: Path,
  request: StepRequest,
  { from: caller, signal }: Call,
): Promise<Outcome<Uint8Array>> {
  const { node, learningRate, onStep, clock, transport } = serving.options;
  if (request.pass === 'prepare') return prepare(serving, path, request, caller, signal);
  const { round, step, norm, seal, driver } = request;
  if (serving.taking.has(driver) || node.records?.has(request)) return reject('stale-step');
  serving.taking.add(driver);
  const applied = await applyStep(
    node,
    path,
    { norm, seal, learningRate: learningRate(round, step) },
    signal,
  ).finally(() => serving.taking.delete(driver));
  // An honest caller has checked it.
  if (!applied.ok) return applied.code === 'bad-signature' ? blame(transport, caller, applied) : applied;
  const takenMs = clock.nowMs();
  serving.drivers.set(driver, { step, heardMs: takenMs });
  const served = serving.paths.get(path.name);
  if (served?.path === path) served.takenMs = takenMs;
  onStep(applied.value);
  return accept(new Uint8Array(0));
}

/** First pass: only with the caller's word for what the step is made of. */
async function prepare(
  { options }: Serving,
  path: Path,
  { ids, receipt }: StepRequest & { readonly pass: 'prepare' },
  caller: NodeId,
  signal: AbortSignal,
): Promise<Outcome<Uint8Array>> {
  const { node, transport } = options;
  const signed = checkReceipt(node, path, caller, { ids, receipt });
  if (!signed.ok) return signed.code === 'wrong-receipt' ? blame(transport, caller, signed) : signed;
  const sums = await prepareStep(node, path, { ids, receipt }, signal);
  return sums.ok ? accept(encodeSums(sealSums(node, path, caller, { ids, sums: sums.value }))) : sums;
}

async function evaluate(serving: Serving, call: Call): Promise<Outcome<Uint8Array>> {
  const { node, shape, transport } = serving.options;
  const decoded = decodeEvaluateRequest(call.message, shape);
  if (!decoded.ok) return blame(transport, call.from, decoded);
  const { round, labels } = decoded.value;
  if (decoded.value.stage !== node.stage) return reject('wrong-stage');
  const admitted = evaluates(serving, round);
  if (!admitted.ok) return admitted;
  if (serving.options.isConvicted?.(call.from)) return reject('convicted');
  const rows = decodeRows(decoded.value.rows, shape.codec, shape.tokens * shape.width);
  if (!rows.ok) return blame(transport, call.from, rows);
  const loss = await evaluateStage(node, { round, labels, entry: rows.value }, call.signal);
  const after = evaluates(serving, round);
  if (!after.ok) return after;
  return loss.ok ? accept(encodeLoss(loss.value)) : loss;
}

/** A replica that trains no longer in a round still stands on its w_r. */
function evaluates({ options }: Serving, round: number): Outcome<void> {
  const admitted = options.admits(round);
  return !admitted.ok && admitted.code === 'round-over' ? accept(undefined) : admitted;
}
