/**
 * What consensus offers and what it asks for: a replica that orders opaque payloads for an application. Says nothing
 * of what a payload means, how messages travel, or where the store keeps its bytes.
 */
import type { KeyPair } from '../identity/keys.ts';
import type { Clock } from '../std/clock.ts';
import type { Outcome } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import type { ConsensusLimits, ConsensusTiming } from './limits.ts';

/** A node with a vote. Its index in the list is its name on the wire, so all nodes must hold the list in one order. */
export interface Member {
  /** SHA-256 of the public key, hex. */
  readonly nodeId: string;
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  /** Positive integer. */
  readonly weight: number;
}

export interface Block {
  readonly height: number;
  /** The block this one extends; every height between is a dummy. Height 0 and 32 zero bytes: the genesis. */
  readonly parentHeight: number;
  readonly parentHash: Uint8Array;
  /** Empty for a filler: a block that only helps its ancestors to be decided. */
  readonly payload: Uint8Array;
}

/** `vote`: for a block; `dummy`: for ⊥ at the height; `finalize`: never to vote ⊥ there. */
export type VoteKind = 'vote' | 'dummy' | 'finalize';

/** Votes of one kind at one height by more than 2/3 of the weight; verifiable from the member list alone. */
export interface Certificate {
  readonly kind: VoteKind;
  readonly height: number;
  /** 32 bytes; zeros for `dummy`. */
  readonly blockHash: Uint8Array;
  /** Ascending member indices. */
  readonly signers: readonly number[];
  /** 64 bytes for each signer. */
  readonly signatures: readonly Uint8Array[];
}

export interface DecidedBlock {
  readonly block: Block;
  readonly hash: Uint8Array;
  /** `finalize` votes for this very block; absent when a later block's certificate decided it. */
  readonly certificate?: Certificate;
}

/** Two statements of one member that no honest member makes. Each is a whole wire message, signature included. */
export interface Evidence {
  /** Two blocks voted for, proposed or finalized at one height; or ⊥ voted and finalized. */
  readonly kind: 'vote' | 'proposal' | 'finalize' | 'finalize-and-dummy';
  readonly member: number;
  readonly height: number;
  readonly first: Uint8Array;
  readonly second: Uint8Array;
}

export interface ProposalContext {
  readonly height: number;
  /** Payloads of the undecided blocks that the new one would extend, oldest first; fillers left out. */
  readonly undecided: readonly Uint8Array[];
  /** Aborts when the replica has left the height: the answer no longer matters. */
  readonly signal: AbortSignal;
}

/** `propose` and `validate` are asked only when every payload decided so far has been taken by `decided`. */
export interface Application {
  /**
   * Asked of the height's leader once it is active there. `undefined`: nothing to propose now; asked again after
   * `wake()`. While a payload of `undecided` still waits, the replica then proposes a filler by itself; an application
   * that proposes on top of undecided payloads keeps consensus running without a rest.
   */
  propose(context: ProposalContext): Promise<Uint8Array | undefined>;
  /**
   * Whether this member may vote for the payload. May take long (it fetches what the payload names): the vote follows
   * when it resolves, if the height is still open, even after the view's timeout. `false` is final until `wake()`.
   */
  validate(payload: Uint8Array, context: ProposalContext): Promise<boolean>;
  /**
   * A decided payload: in order, one at a time, each exactly once while the process lives. After a restart delivery
   * resumes after `appliedHeight`. A throw is fatal for the replica. Fillers are not delivered.
   */
  decided(decided: DecidedBlock): Promise<void> | void;
  /** Several are decided at once, as in catching up, and will come to `decided` one after another. */
  coming?(payloads: readonly Uint8Array[]): void;
  /** Proof that a member broke the rules. */
  evidence?(evidence: Evidence): void;
  /** Others have left `height` and gossip alone may not bring it: fetch decided blocks from a peer and `adopt`. */
  behind?(height: number): void;
  /** The replica stopped for good: its store or `decided` failed, or a bound that should never be met was met. */
  failed?(error: unknown): void;
}

/** Signing, injected so that a simulation may replace it; the default is secp256k1 of `identity/keys.ts`. */
export interface SignatureScheme {
  sign(digest: Uint8Array, key: KeyPair): Uint8Array;
  verify(digest: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean;
}

export interface ConsensusOptions {
  /** Names the network; a vote of one network never counts in another. */
  readonly networkId: Uint8Array;
  readonly members: readonly Member[];
  /** Absent, or of no member: an observer, which follows and never votes. */
  readonly key?: KeyPair;
  readonly clock: Clock;
  /** Keys begin with `consensus/`. */
  readonly store: Store;
  /** Best effort to every other node; loss and reordering are expected. */
  readonly broadcast: (message: Uint8Array) => void;
  readonly application: Application;
  /** What the first block extends, 32 bytes; default `genesisHash`. An epoch's is the hash of the one before's end. */
  readonly root?: Uint8Array;
  /** Holds a member's key, helps those who lag, and never votes: for one that may have forgotten what it said. */
  readonly silent?: boolean;
  /** The last height whose effects the application holds durably; default: what the replica itself noted. */
  readonly appliedHeight?: number;
  readonly limits?: Partial<ConsensusLimits>;
  readonly timing?: Partial<ConsensusTiming>;
  readonly signatures?: SignatureScheme;
}

export interface ConsensusStatus {
  /** Where the replica votes next. */
  readonly height: number;
  readonly decidedHeight: number;
  /** Whether a view is running; false while there is nothing to decide. */
  readonly active: boolean;
  /** Node id of the leader of `height`. */
  readonly leader: string;
  readonly member: boolean;
  readonly members: number;
  /** Weight that may fail or lie without harm. */
  readonly toleratedFailures: number;
  readonly failed: boolean;
}

/** Delivers, sends and receives from the clock's next turn after its creation on. */
export interface ConsensusReplica {
  /** A message from gossip; `from` is used in details only, signatures inside say who spoke. */
  receive(from: string, message: Uint8Array): Outcome<void>;
  /** There is something to decide: stays in force until a payload is decided. Retries refused proposals. */
  wake(): void;
  status(): ConsensusStatus;
  /** Consecutive decided blocks above `height`, bounded; the last one carries a certificate. */
  decidedSince(height: number): readonly DecidedBlock[];
  /**
   * Takes decided blocks from a peer. They must extend what is decided here, unless `jump` (then the application sees
   * a block whose parent it never saw, and must fetch state elsewhere). Codes: `nothing-new`, `unlinked`,
   * `bad-certificate`, `no-certificate`, `too-large`.
   */
  adopt(blocks: readonly DecidedBlock[], options?: { readonly jump?: boolean }): Outcome<void>;
  /** Evidence so far, oldest dropped first. */
  evidence(): readonly Evidence[];
  /** Ends timers and waits for writes under way; nothing is sent afterwards. */
  stop(): Promise<void>;
}

/** A replica whose chain may come to an end. */
export interface EndingReplica extends ConsensusReplica {
  /**
   * The chain ends with the decided block at `height`: nothing more is said, decided or delivered. Goes on telling those
   * who lag behind what was decided.
   */
  retire(height: number): void;
  /** Whether a decided payload has not been taken by the application yet. */
  applying(): boolean;
}
