/** The state before the first block: the founders as members, and nothing else. The same for all who hold the manifest. */
import { nodeIdOf } from '../identity/keys.ts';
import { firstSeed } from './beacon.ts';
import { electVoters } from './members.ts';
import type { LedgerConstants } from './rules.ts';
import { commit, createState, type LedgerState } from './state.ts';
import type { ChainRow } from './tables.ts';

/** A member as the manifest names it. */
export interface Founder {
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  readonly weight: number;
  /** The stage that it holds, counted from 0. */
  readonly stage: number;
}

export function genesisState(founders: readonly Founder[], constants: LedgerConstants): LedgerState {
  const state = createState();
  const chain: ChainRow = {
    number: 0,
    hash: new Uint8Array(32),
    timeMs: 0,
    minted: 0n,
    burned: 0n,
    seeds: [firstSeed(constants.networkId)],
    epoch: 0,
    epochStartMs: 0,
    voters: [],
    bonded: 0n,
    provers: 0,
  };
  commit(
    state,
    founders.map(({ publicKey, weight, stage }) => ({
      table: 'member' as const,
      key: nodeIdOf(publicKey),
      row: {
        publicKey,
        founderWeight: weight,
        stage,
        registered: true,
        convicted: false,
        beacon: null,
        beaconAt: 0,
        proposedAt: 0,
        jailedAt: 0,
      },
    })),
  );
  const voters = electVoters(state, constants.policy, 0n);
  commit(state, [{ table: 'chain', key: '', row: { ...chain, voters } }]);
  return state;
}
