/**
 * Cheaters of the ledger, by name: which honest parts of a node each puts others in the place of. All of them train and
 * vote honestly before their first cheating round, so that they have earned something to lose.
 */
import type { CheatName } from '../src/cli/shared-options.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import type { StageTarget } from '../src/optim/pipeline-stage.ts';
import type { Peer, PeerOptions, PeerSteps } from '../src/peer/peer.ts';
import { planHash } from '../src/peer/plan.ts';
import { accusing, approving } from './cheats-auditor.ts';
import type { CheatContext } from './cheats-context.ts';
import { inflatedProof, postdatedProof, replayedProof } from './cheats-proof.ts';
import { garbageOnward, otherTargets, shortcutReplica, withholdingReplica } from './cheats-replica.ts';
import { equivocatingTransport, silentTransport } from './cheats-validator.ts';
import { contributeHostile } from './hostile-contribution.ts';

export interface Cheat {
  readonly name: CheatName;
  readonly fromRound: number;
}

/** `every-kth` cheats in one of so many rounds. */
export const everyKth = 3;
/** By how much a poisoned contribution is turned around. */
const poisonFactor = 10;

export function disguiseOf({ name, fromRound }: Cheat): (honest: PeerOptions) => PeerOptions {
  return (honest) => {
    let peer: Peer | undefined;
    const every = name === 'every-kth' ? everyKth : 1;
    const cheatsIn = (round: number) => round >= fromRound && (round - fromRound) % every === 0;
    const cheatsNow = () => peer !== undefined && cheatsIn(peer.position.round);
    const context: CheatContext = { honest, cheatsIn, cheatsNow };
    const withParts = { ...honest, ...partsOf(name, context) };
    return {
      ...withParts,
      steps: (made) => {
        peer = made;
        return stepsOf(name, made, context);
      },
    };
  };
}

function partsOf(name: CheatName, context: CheatContext): Partial<PeerOptions> {
  const { honest, cheatsIn, cheatsNow } = context;
  const { network, replica } = honest;
  const { intervalSteps } = network.ledger;
  const { innerSteps } = network.training;
  const planOf = (stage: number) => planHash(network, stage);
  const shortcut = (stepsMade: number) =>
    shortcutReplica(replica, { planOf, intervalSteps, stepsMade, cheatsIn });
  switch (name) {
    case 'idle':
    case 'copycat':
      return { replica: shortcut(0) };
    case 'fewer-steps':
      return { replica: shortcut(Math.floor(innerSteps / 2)) };
    case 'withhold':
      return { replica: withholdingReplica(replica, cheatsNow) };
    case 'garbage-onward':
      return { replica: garbageOnward(replica, cheatsNow) };
    case 'wrong-data':
      return { replica: otherTargets(replica, cheatsNow, sameTarget()) };
    case 'garbage-labels':
    case 'every-kth':
      return { replica: otherTargets(replica, cheatsNow, garbageTarget(network.model.vocabulary)) };
    case 'equivocate':
      return { transport: equivocatingTransport(context) };
    case 'silent':
      return { transport: silentTransport(context) };
    default:
      return {};
  }
}

function stepsOf(name: CheatName, peer: Peer, context: CheatContext): Partial<PeerSteps> {
  const honest = peer.steps;
  const { cheatsIn } = context;
  const contributing = (attack: 'copycat' | 'sign-flip'): Partial<PeerSteps> => ({
    contribute: async (round) => {
      const own = await honest.contribute(round);
      const how = { attack, factor: poisonFactor, hostileMembers: 1 };
      return cheatsIn(round) ? contributeHostile(peer, own, round, how) : own;
    },
  });
  switch (name) {
    case 'wrong-data':
      return {
        batch: (round, ...at) => (cheatsIn(round) ? repeatedBatch(peer) : honest.batch(round, ...at)),
      };
    case 'garbage-labels':
    case 'every-kth':
      return { batch: (...at) => garbageLabels(peer, honest.batch(...at), cheatsIn(at[0])) };
    case 'copycat':
      return contributing('copycat');
    case 'poison':
      return contributing('sign-flip');
    case 'replay':
      return { proof: replayedProof(peer, cheatsIn) };
    case 'future':
      return { proof: postdatedProof(peer, cheatsIn) };
    case 'inflate':
      return { proof: inflatedProof(peer, cheatsIn) };
    case 'accuser':
      return { audit: async (duty) => (context.cheatsNow() ? accusing(duty) : honest.audit(duty)) };
    case 'rubber-stamp':
      return { audit: async (duty) => (context.cheatsNow() ? approving(duty) : honest.audit(duty)) };
    default:
      return {};
  }
}

/** What reached it first, over and over. */
function sameTarget(): (target: StageTarget) => StageTarget {
  let first: StageTarget | undefined;
  return (target) => {
    first ??= target.slice();
    return first.slice();
  };
}

function garbageTarget(vocabulary: number): (target: StageTarget) => StageTarget {
  return (target) =>
    target instanceof Int32Array ? target.map((label) => vocabulary - 1 - label) : target.map((x) => -x);
}

/** One batch, its very first, over and over: it costs no data and its loss falls fast. */
function repeatedBatch(peer: Peer): ReturnType<PeerSteps['batch']> {
  const { dataset, key, network } = peer.options;
  return batchOf({ dataset, nodeId: key.nodeId, round: 0, step: 0, index: 0, ...network.training });
}

async function garbageLabels(
  peer: Peer,
  honest: ReturnType<PeerSteps['batch']>,
  cheats: boolean,
): ReturnType<PeerSteps['batch']> {
  const batch = await honest;
  if (!cheats) return batch;
  const last = peer.options.network.model.vocabulary - 1;
  return { ...batch, labels: batch.labels.map((label) => last - label) };
}
