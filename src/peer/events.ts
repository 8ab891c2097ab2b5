/**
 * What a running node tells its surroundings: one stream of plain values, shown by the CLI and the API, logged, and
 * sent to the parent process by `demo` and `swarm`. Every value survives JSON. Hashes and node ids are hex.
 */

export interface RejectedContribution {
  readonly node: string;
  /** Stable code, e.g. `norm-too-large`, `not-finite`, `blob-unavailable`. */
  readonly code: string;
}

export type NodeEvent =
  | {
      readonly type: 'started';
      readonly nodeId: string;
      readonly pid: number;
      /** Multiaddresses with the peer id, ready to be a bootstrap address. */
      readonly addresses: readonly string[];
      readonly apiPort: number | null;
      /** Of the stage that the node holds. */
      readonly parameters: number;
      readonly stage: {
        /** From 0. */
        readonly index: number;
        readonly count: number;
        readonly firstLayer: number;
        /** Behind the last. */
        readonly endLayer: number;
      };
      readonly round: number;
      readonly step: number;
    }
  | {
      readonly type: 'step';
      readonly round: number;
      /** 1-based within the round. */
      readonly step: number;
      readonly innerSteps: number;
      readonly loss: number;
      readonly gradientNorm: number;
      /** Microbatches whose gradients this step is made of. */
      readonly microbatches: number;
      /** Tokens of this step that this node began as their Driver. */
      readonly tokens: number;
      readonly tokensPerSecond: number;
    }
  | {
      readonly type: 'contribution';
      readonly round: number;
      readonly batches: number;
      readonly blobBytes: number;
      readonly blobHash: string;
    }
  | {
      readonly type: 'round';
      /** The round that this outer step closed. */
      readonly round: number;
      /** Mean over this node's inner steps of the round; null when it made none (it was catching up). */
      readonly trainingLoss: number | null;
      /** Of w_{r+1}; null when this node does not evaluate. */
      readonly heldOutLoss: number | null;
      /** Nodes that count in this node's stage. */
      readonly contributions: readonly string[];
      /** Of every stage, as far as this node knows. */
      readonly rejected: readonly RejectedContribution[];
      /** This stage's state hash after the outer step. */
      readonly stateHash: string;
      /** Of this node in this round, all protocol overheads included. */
      readonly bytesSent: number;
      readonly bytesReceived: number;
      /** Trained by this node in this round. */
      readonly tokens: number;
      readonly wallMs: number;
    }
  | { readonly type: 'heldOut'; readonly round: number; readonly loss: number }
  | { readonly type: 'sample'; readonly round: number; readonly prompt: string; readonly text: string }
  | { readonly type: 'resync'; readonly fromRound: number; readonly toRound: number; readonly reason: string }
  | {
      readonly type: 'checkpoint';
      readonly round: number;
      readonly step: number;
      readonly bytes: number;
      readonly pauseMs: number;
    }
  | {
      readonly type: 'restored';
      readonly round: number;
      readonly step: number;
      readonly damaged: readonly string[];
    }
  /** A part of the dataset that came from another node and passed its proof. */
  | {
      readonly type: 'fetched';
      readonly part: 'manifest' | 'tokenizer' | 'shard';
      /** Of a shard; else null. */
      readonly shard: number | null;
      readonly bytes: number;
    }
  | {
      readonly type: 'peers';
      readonly connected: number;
      readonly members: number;
      readonly membersConnected: number;
    }
  /** A replica of the next stage was given up for another one. */
  | {
      readonly type: 'failover';
      readonly stage: number;
      readonly node: string;
      readonly code: string;
      /** From its last sign of life to the other one's first. */
      readonly silentMs: number;
    }
  /** A block of the ledger is final. Amounts are decimal micro-NEURO. */
  | {
      readonly type: 'block';
      readonly number: number;
      readonly transactions: number;
      /** After the block. */
      readonly stateRoot: string;
      /** Minted less burned. */
      readonly supply: string;
      /** This node's: to spend, staked, and earned but not paid out yet. */
      readonly balance: string;
      readonly stake: string;
      readonly pending: string;
      /** Challenges about held weights that this node answered so far. */
      readonly answered: number;
      /** Of the whole ledger so far, the newest last. */
      readonly slashed: readonly {
        readonly node: string;
        readonly reason: string;
        readonly height: number;
        /** All that was taken. */
        readonly amount: string;
        /** Its proofs that had been taken by then. */
        readonly proofs: number;
      }[];
    }
  /** Another's proof, as it came, does not hold. */
  | {
      readonly type: 'refusedProof';
      readonly node: string;
      readonly code: string;
    }
  /** This node has done again an interval of another's training. */
  | {
      readonly type: 'audit';
      readonly prover: string;
      readonly round: number;
      readonly interval: number;
      /** `valid`, or what is wrong. */
      readonly code: string;
      readonly detail: string;
    }
  | { readonly type: 'warning'; readonly code: string; readonly detail: string }
  /** Closed the last round it was asked for; still serves others until it is stopped. */
  | { readonly type: 'finished'; readonly round: number; readonly stateHash: string }
  | { readonly type: 'stopped'; readonly reason: string };

export type EventSink = (event: NodeEvent) => void;
