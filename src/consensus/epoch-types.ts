/**
 * What consensus with changing members offers and asks for: epochs, each with one fixed member list, one after the
 * other. Says nothing of stake, or of what a payload means; why an epoch ends is the application's business.
 */
import type { Outcome } from '../std/outcome.ts';
import type {
  Application,
  ConsensusOptions,
  ConsensusStatus,
  DecidedBlock,
  Evidence,
  Member,
} from './types.ts';

/** Where a block stands: heights begin again at 1 in every epoch. Height 0: before an epoch's first block. */
export interface Position {
  readonly epoch: number;
  readonly height: number;
}

/** All that one must know to follow an epoch from its beginning. */
export interface EpochStart {
  /** From 0. */
  readonly epoch: number;
  /** In the order that gives them their index. */
  readonly members: readonly Member[];
  /** What the epoch's first block extends: the hash of the block that ended the epoch before; `genesisHash` for none. */
  readonly root: Uint8Array;
}

/**
 * What the application's state says once it has applied the last payload of an epoch: the same at every honest node.
 * The members of the ending epoch certify exactly this.
 */
export interface NextEpoch {
  readonly members: readonly Member[];
  /** 32 bytes: the root of that state, which a newcomer's snapshot must have. */
  readonly stateRoot: Uint8Array;
  /** The application's time at that payload, in ms: what a checkpoint's age is counted from. */
  readonly timeMs: number;
}

/** An epoch's beginning as its predecessor's members certified it, and the state it begins with. */
export type CertifiedStart = EpochStart & Pick<NextEpoch, 'stateRoot' | 'timeMs'>;

/** Consecutive decided blocks of one epoch, the last one certified. */
export interface EpochRun {
  readonly epoch: number;
  readonly blocks: readonly DecidedBlock[];
}

/** Proof, in a few hundred bytes, that a member contradicted itself; `checkEvidence` judges the bytes anywhere. */
export interface Equivocation {
  readonly epoch: number;
  readonly nodeId: string;
  readonly kind: Evidence['kind'];
  readonly height: number;
  readonly bytes: Uint8Array;
}

/** As in `Application`, but for the methods named here; a payload is never proposed or judged on top of an undecided one. */
export interface EpochApplication extends Omit<Application, 'decided' | 'evidence' | 'behind'> {
  /** As in `Application`; the position of the block is what `applied` takes after a restart. */
  decided(decided: DecidedBlock, epoch: number): Promise<void> | void;
  /**
   * What follows the epoch, once its last payload has been applied; undefined before that. Asked after every delivered
   * payload and after a restart, so it must follow from what the application holds durably. The members must be a list
   * that `memberSet` takes: an epoch without members would be the end of the network.
   */
  nextEpoch(epoch: number): Promise<NextEpoch | undefined> | NextEpoch | undefined;
  /** A new epoch's replica runs; not called for the epoch in which this node starts. */
  began?(start: CertifiedStart): void;
  evidence?(equivocation: Equivocation): void;
  /** Others are at `position` at least, and gossip alone may not bring what is missing: fetch runs and `adopt` them. */
  behind?(position: Position): void;
}

export interface EpochsOptions
  extends Omit<ConsensusOptions, 'members' | 'application' | 'appliedHeight' | 'root' | 'silent'> {
  readonly application: EpochApplication;
  /**
   * The network's first epoch, or the one whose state the application was last given by a snapshot: it never stands
   * before it. What came after, the store knows.
   */
  readonly start: EpochStart;
  /** The last payload whose effects the application holds durably; default: what was noted here. */
  readonly applied?: Position;
}

export interface EpochsStatus extends ConsensusStatus {
  readonly epoch: number;
  /** The last payload of the epoch is applied; the members are certifying who comes next. */
  readonly ending: boolean;
}

/** As `ConsensusReplica`, over epochs. Begins in the clock's next turn. */
export interface EpochsReplica {
  receive(from: string, message: Uint8Array): Outcome<void>;
  /** There is something to decide: stays in force, over the end of an epoch too, until a payload is decided. */
  wake(): void;
  /** Heights are the epoch's own; `toleratedFailures` and `members` are those of the epoch's member list. */
  status(): EpochsStatus;
  /** What follows the position, of one epoch; of a later one than asked for when nothing older is left. */
  decidedSince(position: Position): EpochRun;
  /**
   * Takes decided blocks of the current epoch from a peer. Codes as in `ConsensusReplica.adopt`, and `busy` (this node
   * is still applying the end of its epoch: try again), `epoch-pruned` (the peer no longer has what comes next here).
   */
  adopt(run: EpochRun): Outcome<void>;
  /** How the epochs from `epoch` on ended, consecutive, as long as they are kept: what `verifyEpochs` takes. */
  endsSince(epoch: number): Promise<readonly EpochRun[]>;
  /** The epoch now running. */
  start(): EpochStart;
  evidence(): readonly Equivocation[];
  stop(): Promise<void>;
}
