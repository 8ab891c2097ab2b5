/**
 * Nodes that write text for each other and pay: a real ledger each, joined by consensus, and a stage of a small model on
 * some of them, in virtual time. The last node asks; the others hold the stages, replica by replica.
 */
import type { KeyPair } from '../src/identity/keys.ts';
import type { LedgerPolicy } from '../src/ledger/policy.ts';
import { createTextGenerator } from '../src/peer/generate.ts';
import { createPayments, type Payments } from '../src/peer/payments.ts';
import type { TextGenerator, TextRequest } from '../src/peer/text-generator.ts';
import type { ServiceMeter } from '../src/pipeline/payment.ts';
import { must } from '../src/std/assert.ts';
import { concatBytes } from '../src/std/bytes.ts';
import type { Engine } from '../src/tensor/engine.ts';
import { testKeys } from './consensus-group.ts';
import { createDecodeNetwork, type DecodeNetwork, decodeConfig } from './decode-network.ts';
import { createLedgerGroup, type LedgerGroup, type LedgerGroupNode } from './ledger-group.ts';
import { endow } from './ledger-nodes.ts';
import { settle } from './virtual-network.ts';

export interface PayingNode extends LedgerGroupNode {
  readonly key: KeyPair;
  payments: Payments;
  /** As after a restart of the process: what was stored is there, the rest is not. */
  restartPayments(): Promise<void>;
}

export interface PaymentGroup {
  readonly ledgers: LedgerGroup;
  readonly nodes: readonly PayingNode[];
  readonly caller: PayingNode;
  readonly decode: DecodeNetwork;
  readonly text: TextGenerator;
  /** Writes a text and gives its number of tokens. */
  write(request?: Partial<TextRequest>, onToken?: (made: number) => void): Promise<number>;
  /** Lets time pass. */
  pass(ms: number): Promise<void>;
  balance(nodeId: string): bigint;
}

export interface PaymentGroupOptions {
  readonly engine: Engine;
  readonly stages: number;
  readonly replicas?: number;
  /** What the caller has. */
  readonly balance: bigint;
  readonly policy: Partial<LedgerPolicy>;
  /** The caller asks without ever paying. */
  readonly neverPays?: boolean;
  readonly callerStage?: number;
  /** What a node puts in the place of its honest meter. */
  readonly meter?: (honest: ServiceMeter, stage: number) => ServiceMeter;
}

const endOfText = 0;
const bytesOfToken = (id: number) => Uint8Array.of(32 + (id % 90));
const tokenizer = {
  endOfText,
  tokenBytes: bytesOfToken,
  encode: (text: string) => [...text].map((letter) => 1 + (letter.codePointAt(0)! % 250)),
  decode: (ids: Iterable<number>) => new TextDecoder().decode(concatBytes(...[...ids].map(bytesOfToken))),
  decoder: () => ({ push: (id: number) => String.fromCharCode(...bytesOfToken(id)), end: () => '' }),
};

export async function createPaymentGroup(options: PaymentGroupOptions): Promise<PaymentGroup> {
  const { engine, stages, replicas = 1, callerStage } = options;
  const serving = stages * replicas;
  const keys = testKeys(serving + 1);
  const ledgers = createLedgerGroup(keys.length, keys.length, { epochBlocks: 100, ...options.policy });
  const { net, network } = ledgers;
  const nodes: PayingNode[] = [];
  for (const [index, key] of keys.entries()) {
    const node = await ledgers.start(index);
    await endow(node.ledger, keys.at(-1)!.nodeId, options.balance);
    const stage = index === serving ? (callerStage ?? 0) : Math.floor(index / replicas);
    const open = () =>
      createPayments({
        network: { ...network, training: { ...network.training, stages } },
        key,
        stage,
        ledger: node.ledger,
        store: node.store,
        transport: { ...node.transport, penalize: (_peer, code) => void node.penalties.push(code) },
        clock: net.clock,
      });
    const paying: PayingNode = {
      ...node,
      key,
      payments: await open(),
      restartPayments: async () => {
        await paying.payments.close();
        paying.payments = await open();
      },
    };
    nodes.push(paying);
  }
  const caller = must(nodes.at(-1), 'a caller');
  const { payer } = caller.payments;
  const decode = createDecodeNetwork({
    engine,
    stages,
    replicas,
    ...(callerStage !== undefined && { callerStage }),
    on: {
      clock: net.clock,
      hub: net.hub,
      serving: (stage, replica) => {
        const { transport, payments } = must(nodes[stage * replicas + replica], 'a node');
        const { meter } = payments;
        return { transport, ...(meter && { meter: options.meter?.(meter, stage) ?? meter }) };
      },
      caller: { transport: caller.transport, ...(payer && !options.neverPays && { payer }) },
    },
  });
  const text = createTextGenerator({ model: 'test', config: decodeConfig, client: decode.client, tokenizer });
  return {
    ledgers,
    nodes: nodes.slice(0, -1),
    caller,
    decode,
    text,
    write: (request = {}, onToken = () => {}) => settle(net, writeText(text, request, onToken), 3_600_000),
    pass: (ms) => net.run(ms),
    balance: (nodeId) => caller.ledger.state().get('account', nodeId)?.balance ?? 0n,
  };
}

async function writeText(
  text: TextGenerator,
  more: Partial<TextRequest>,
  onToken: (made: number) => void,
): Promise<number> {
  const usual = { prompt: [1, 2, 3, 4], maxTokens: 70, temperature: 0, topP: 1, seed: 5, stop: [] };
  let tokens = 0;
  for await (const part of text.generate({ ...usual, ...more })) {
    if (part.kind === 'token') tokens += 1;
    onToken(tokens);
  }
  return tokens;
}
