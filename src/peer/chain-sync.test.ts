/** Carrying consensus over the transport: gossip, serving decided blocks, and fetching them from peers of any kind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGroup, testNetwork } from '../../test/consensus-group.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import type { EpochRun, EpochsReplica, Position } from '../consensus/epoch-types.ts';
import { encodePosition, encodeRun } from '../consensus/epoch-wire.ts';
import type { DecidedBlock } from '../consensus/types.ts';
import { blocksProtocol } from '../net/protocol.ts';
import { encodeCanonical } from '../std/codec.ts';
import { accept, reject } from '../std/outcome.ts';
import { connectChain } from './chain-sync.ts';

/** Four blocks that a real group of one has decided, each with its certificate. */
async function decidedBlocks(): Promise<readonly DecidedBlock[]> {
  const group = createGroup(1);
  const { replica } = await group.open(0);
  for (let height = 0; height < 4; height++) {
    group.wakeAll();
    await group.run(10_000);
  }
  const blocks = replica.decidedSince(0);
  await replica.stop();
  return blocks;
}
const blocks = await decidedBlocks();
const top = { epoch: 2, height: blocks.at(-1)!.block.height };

/** A replica of epoch 2 that takes blocks in order, and notes what it was offered. */
function takingReplica(start = 0) {
  let decidedHeight = start;
  const offers: string[] = [];
  const replica = {
    status: () => ({ epoch: 2, decidedHeight }),
    adopt: ({ epoch, blocks: offered }: EpochRun) => {
      const first = offered.find(({ block }) => block.height > decidedHeight);
      offers.push(`${epoch}: ${offered[0]?.block.height}-${offered.at(-1)?.block.height}`);
      if (epoch !== 2) return reject('epoch-pruned');
      if (!first) return reject('nothing-new');
      if (first.block.parentHeight !== decidedHeight) return reject('unlinked');
      decidedHeight = offered.at(-1)!.block.height;
      return accept(undefined);
    },
    decidedSince: ({ epoch, height }: Position) => ({
      epoch: 2,
      blocks: blocks.filter(({ block }) => epoch < 2 || block.height > height),
    }),
    receive: () => accept(undefined),
  } as unknown as EpochsReplica;
  return { replica, offers, height: () => decidedHeight };
}

function chainOf(others: number) {
  const network = createVirtualNetwork(1 + others);
  const penalties: string[] = [];
  network.transports[0]!.penalize = (peer, code) =>
    void penalties.push(`${network.ids.indexOf(peer)} ${code}`);
  const chains = network.transports.map((transport) => connectChain({ transport, networkId: testNetwork }));
  /** Node ids are asked in order of their names. */
  const inOrder = network.transports[0]!.peers().map((id) => network.ids.indexOf(id));
  return { ...network, chains, penalties, inOrder };
}

test('there are blocks to talk about', () => {
  assert.ok(blocks.length >= 4 && blocks.at(-1)!.certificate);
});

test('who is behind fetches what is decided, and asks until it is there', async () => {
  const { chains, run } = chainOf(1);
  chains[1]!.serve(takingReplica(top.height).replica);
  const behind = takingReplica();
  chains[0]!.catchUp(behind.replica, top);
  chains[0]!.catchUp(behind.replica, top);
  await run(60_000);
  assert.equal(behind.height(), top.height);
  assert.equal(behind.offers.length, 1, 'one attempt at a time');
});

test('peers that know nothing, lie or stall are passed over; liars are penalised', async () => {
  const { chains, transports, run, penalties, inOrder } = chainOf(4);
  const [silent, liar, empty, honest] = inOrder as [number, number, number, number];
  transports[silent]!.handle(blocksProtocol, () => new Promise(() => {}));
  transports[liar]!.handle(blocksProtocol, async () => accept(new Uint8Array([0xff, 0xff])));
  transports[empty]!.handle(blocksProtocol, async () => accept(encodeRun({ epoch: 2, blocks: [] })));
  chains[honest]!.serve(takingReplica(top.height).replica);
  const behind = takingReplica();
  chains[0]!.catchUp(behind.replica, top);
  await run(120_000);
  assert.equal(behind.height(), top.height);
  assert.equal(penalties.length, 1);
  assert.match(penalties[0]!, new RegExp(`^${liar} `));
});

test('a peer that has pruned what is missing is passed over for one that has it', async () => {
  const { chains, transports, run, penalties, inOrder } = chainOf(2);
  const [pruned, honest] = inOrder as [number, number];
  const later = encodeRun({ epoch: 3, blocks: blocks.slice(-1) });
  transports[pruned]!.handle(blocksProtocol, async () => accept(later));
  chains[honest]!.serve(takingReplica(top.height).replica);
  const behind = takingReplica();
  chains[0]!.catchUp(behind.replica, top);
  await run(60_000);
  assert.equal(behind.height(), top.height);
  assert.equal(behind.offers[0]?.slice(0, 2), '3:');
  assert.deepEqual(penalties, []);
});

test('requests that make no sense are answered with a code', async () => {
  const { chains, transports, clock } = chainOf(1);
  const end = chains[1]!.serve(takingReplica(top.height).replica);
  const ask = async (body: Uint8Array) => {
    let code = '';
    const answer = transports[0]!.request(transports[1]!.self, blocksProtocol, body);
    void answer.then((outcome) => (code = outcome.ok ? 'accepted' : outcome.code));
    await clock.run(clock.nowMs() + 60_000, () => code !== '');
    return code;
  };
  assert.equal(await ask(encodePosition({ epoch: 0, height: 0 })), 'accepted');
  assert.equal(await ask(encodePosition({ epoch: 9, height: 10 ** 9 })), 'accepted');
  for (const wrong of [0, 'x', [0], [0, -1], [0.5, 1], [1, 2, 3]])
    assert.equal(await ask(encodeCanonical(wrong)), 'schema');
  assert.equal(await ask(new Uint8Array([0xff])), 'malformed');
  end();
  assert.equal(await ask(encodePosition(top)), 'unknown-protocol');
});

test('gossip reaches the replica; only what no honest peer sends is held against the sender', async () => {
  const { chains, run, penalties } = chainOf(1);
  const heard: Uint8Array[] = [];
  const codes = ['malformed', 'duplicate', 'bad-signature', 'already-decided', 'bad-certificate'];
  const { replica } = takingReplica();
  const listening = {
    ...replica,
    receive: (_from: string, message: Uint8Array) => reject(codes[heard.push(message) - 1]!),
  };
  const end = chains[0]!.serve(listening);
  for (const code of codes) chains[1]!.broadcast(new Uint8Array([codes.indexOf(code)]));
  await run(1000);
  assert.equal(heard.length, codes.length);
  assert.deepEqual(penalties, ['1 malformed', '1 bad-signature', '1 bad-certificate']);
  end();
  chains[1]!.broadcast(new Uint8Array([9]));
  await run(1000);
  assert.equal(heard.length, codes.length);
});

test('a broadcast that the transport refuses is nobody’s unhandled rejection', async () => {
  const { transports, run } = chainOf(1);
  const broken = { ...transports[0]!, publish: () => Promise.reject(new Error('closed')) };
  connectChain({ transport: broken, networkId: testNetwork }).broadcast(new Uint8Array([1]));
  await run(100);
  assert.equal(transports[0]!.traffic().bytesSent, 0);
});
