/**
 * Decoding with the agreed weights of a stage whose rounds go on: sessions stay with the w_r they began with, of which
 * copies are kept while they last. It knows no training, no peers and no time.
 */
import type { ModelConfig } from '../model/config.ts';
import { packResults, unpackCalls } from '../model/decode-batch.ts';
import type { DecodeHost, OpenedSession } from '../model/decode-host.ts';
import { createDecodeStage, type DecodeStage } from '../model/decode-stage.ts';
import type { StageSpec } from '../model/parameters.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import type { Engine } from '../tensor/engine.ts';

/** For the caches of all sessions, unless told otherwise. */
export const decodeCacheBytesDefault = 256 * 1024 * 1024;

export interface DecodeSessionsOptions {
  readonly engine: Engine;
  /** See `OpenedSession`. */
  readonly engineClass: string;
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  /** Live views of w_r by name. */
  readonly bases: Readonly<Record<string, Float32Array>>;
  /** r. */
  readonly round: () => number;
  readonly cacheBytesMax?: number;
}

export interface DecodeSessions extends DecodeHost {
  /** To be called before w_r is replaced by w_{r+1}. */
  keepBase(): void;
  /** w_r was replaced by something else: its sessions end, and so do those of rounds kept so far. */
  forget(): void;
  release(): Promise<void>;
}

type Weights = Readonly<Record<string, Float32Array>>;

/** Copies of earlier rounds, at most. */
const roundsKeptMax = 2;

/**
 * The round before the current one is kept as soon as the stage has served a session at all, because a session that
 * comes from a replica that died began there; an older one only while sessions of its own are open.
 */
export function createDecodeSessions(options: DecodeSessionsOptions): DecodeSessions {
  const { bases, round } = options;
  /** The oldest first. */
  const kept = new Map<number, Weights>();
  let stage: DecodeStage | undefined;
  const parameters = (wanted: number) => (wanted === round() ? bases : kept.get(wanted));
  const stageOnceUsed = () => {
    stage ??= createDecodeStage({
      ...options,
      cacheBytesMax: options.cacheBytesMax ?? decodeCacheBytesDefault,
      parameters,
    });
    return stage;
  };
  return {
    openSession: async (call): Promise<Outcome<OpenedSession>> => {
      const used = stageOnceUsed();
      const pinned = call.round ?? round();
      const opened = used.open({ session: call.session, round: pinned });
      if (!opened.ok) return opened;
      return accept({ round: pinned, engineClass: options.engineClass, capacity: used.capacity });
    },
    decode: async (batch) => packResults(await stageOnceUsed().run(unpackCalls(batch))),
    closeSession: async (session) => stage?.close(session),
    keepBase() {
      if (!stage) return;
      const pinned = new Set(stage.rounds());
      const unused = [...kept.keys()].filter((old) => !pinned.has(old));
      const oldest = [...kept.keys()].filter((old) => pinned.has(old)).slice(0, 1 - roundsKeptMax);
      let spare: Weights | undefined;
      for (const old of [...unused, ...oldest]) {
        spare ??= kept.get(old);
        kept.delete(old);
      }
      kept.set(round(), copyInto(spare, bases));
    },
    forget() {
      kept.clear();
      stage?.closeAll();
    },
    release: async () => stage?.release(),
  };
}

function copyInto(spare: Weights | undefined, from: Weights): Weights {
  if (!spare) return Object.fromEntries(Object.entries(from).map(([name, view]) => [name, view.slice()]));
  for (const [name, view] of Object.entries(from)) spare[name]!.set(view);
  return spare;
}
