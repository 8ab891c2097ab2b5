/** Transactions between nodes in virtual time: out by gossip, in again, bad ones blamed, and consensus woken when due. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endow, listTransaction, roundList, takeNext, tinyNetwork } from '../../test/ledger-nodes.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import type { KeyPair } from '../identity/keys.ts';
import { memoryLedgerStore } from '../ledger/memory-store.ts';
import type { TransactionRule } from '../ledger/rules.ts';
import { encodeTransaction, signTransaction } from '../ledger/transaction.ts';
import { leave } from '../ledger/transactions/leave.ts';
import { stateStatement } from '../ledger/transactions/state.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { encodeCanonical } from '../std/codec.ts';
import { openLedger } from './ledger.ts';
import { createTransactions } from './transactions.ts';

const topic = 'transaction';

async function group(count: number) {
  const net = createVirtualNetwork(count);
  const network = tinyNetwork(net.keys);
  const penalties: string[] = [];
  const wakes: [node: number, atMs: number][] = [];
  const startedMs = net.clock.nowMs();
  const nodes = await Promise.all(
    net.transports.map(async (transport, index) => {
      transport.penalize = (peer, code) => void penalties.push(`${net.ids.indexOf(peer)} ${code}`);
      const ledger = await openLedger({ network, store: memoryLedgerStore(), clock: net.clock });
      await endow(ledger, net.ids[0]!, 1_000_000n);
      const wake = () => void wakes.push([index, net.clock.nowMs() - startedMs]);
      const transactions = createTransactions({ ledger, transport, clock: net.clock, wake });
      return { ledger, transport, transactions };
    }),
  );
  /** Signed by a wallet, with a nonce of its own choice. */
  const signed = <Body>(
    rule: TransactionRule<Body>,
    body: Body,
    nonce: number,
    key: KeyPair = net.keys[0]!,
  ) => encodeTransaction(signTransaction(network.networkId, rule, { body, nonce }, key));
  const pay = (amount: bigint, nonce: number) => signed(transfer, { to: net.ids[1]!, amount }, nonce);
  const waiting = () => nodes.map(({ ledger }) => ledger.mempool.size().transactions);
  return { ...net, net, network, nodes, penalties, wakes, signed, pay, waiting, startedMs };
}

test('what is submitted at one node waits at all; consensus is woken at once, then once for what comes together', async () => {
  const { nodes, pay, waiting, wakes, run, penalties } = await group(3);
  assert.ok(nodes[0]!.transactions.submit(pay(1n, 1)).ok);
  await run(50);
  assert.deepEqual(wakes.map(([node]) => node).sort(), [0, 1, 2]);
  for (const [, atMs] of wakes.splice(0)) assert.ok(atMs <= 10, `${atMs}`);
  assert.ok(nodes[2]!.transactions.submit(pay(2n, 2)).ok);
  await run(20);
  assert.ok(nodes[2]!.transactions.submit(pay(3n, 3)).ok);
  await run(100);
  assert.deepEqual(waiting(), [3, 3, 3]);
  assert.equal(wakes.length, 0);
  await run(1_000);
  assert.deepEqual(wakes.map(([node]) => node).sort(), [0, 1, 2]);
  for (const [, atMs] of wakes) assert.ok(atMs >= 200 && atMs <= 210, `${atMs}`);
  assert.equal(penalties.length, 0);
});

test('what nodes send by themselves is gathered for a moment', async () => {
  const { nodes, signed, wakes, run } = await group(2);
  assert.ok(nodes[0]!.transactions.submit(signed(leave, {}, 1)).ok);
  await run(190);
  assert.equal(wakes.length, 0);
  await run(30);
  assert.equal(wakes.length, 2);
});

test('what is refused here goes nowhere, with its code', async () => {
  const { nodes, pay, waiting, run, signed, ids } = await group(2);
  const submit = (bytes: Uint8Array) => {
    const added = nodes[0]!.transactions.submit(bytes);
    return added.ok ? 'ok' : added.code;
  };
  const first = pay(1n, 1);
  assert.equal(submit(first), 'ok');
  assert.equal(submit(first), 'known');
  assert.equal(submit(pay(2_000_000n, 2)), 'overdrawn');
  assert.equal(submit(signed(transfer, { to: ids[0]!, amount: 1n }, 3)), 'own-account');
  assert.equal(submit(new Uint8Array(20_000)), 'too-large');
  assert.notEqual(submit(new Uint8Array([1, 2, 3])), 'ok');
  await run(500);
  assert.deepEqual(waiting(), [1, 1]);
});

test('by gossip: what no honest node sends is blamed on the sender, what has only aged is not', async () => {
  const { nodes, pay, run, penalties, transports, waiting, signed, ids, keys } = await group(3);
  const say = (bytes: Uint8Array) => transports[1]!.publish(topic, bytes);
  const good = pay(1n, 5);
  assert.ok(nodes[0]!.transactions.submit(good).ok);
  await run(50);
  // Known, of a poor account, of an unknown round: what others may have seen otherwise.
  await say(good);
  await say(signed(transfer, { to: ids[0]!, amount: 1n }, 1, keys[1]));
  const statement = { round: 9, stage: 0, stateHash: new Uint8Array(32) };
  await say(signed(stateStatement, statement, 2, keys[1]));
  await run(50);
  assert.equal(penalties.length, 0);
  const forged = pay(2n, 6);
  forged[forged.length - 1]! ^= 1;
  await say(forged);
  await say(new Uint8Array([0xff, 0x00]));
  await say(encodeCanonical(['transfer', 1]));
  await say(encodeCanonical(['round', 0, [0, [1]], null, null]));
  await run(50);
  const blamed = penalties.filter((line) => line.startsWith('1 '));
  assert.equal(blamed.length, 2 * 4, `${penalties}`);
  assert.equal(penalties.length, blamed.length);
  assert.ok(blamed.includes('1 bad-signature') && blamed.includes('1 not-signed-by-author'), `${blamed}`);
  assert.deepEqual(waiting(), [1, 1, 1]);
});

test('one sender is heard so often a minute, the others still', async () => {
  const { transports, run, penalties, nodes, pay, waiting } = await group(3);
  for (let i = 0; i < 1_300; i++) await transports[1]!.publish(topic, new Uint8Array([0xff, i & 255]));
  await transports[1]!.publish(topic, pay(1n, 1));
  await run(50);
  assert.equal(penalties.length, 2 * 1_200);
  assert.deepEqual(waiting(), [0, 0, 0]);
  assert.ok(nodes[2]!.transactions.submit(pay(1n, 1)).ok);
  await run(50);
  assert.deepEqual(waiting(), [1, 1, 1]);
});

test('statements wait for the next round, ten seconds at most; a transfer takes them along', async () => {
  const { nodes, pay, run, wakes, network, ids, keys, clock } = await group(2);
  const own = [listTransaction(roundList(network.networkId, 0, keys))];
  for (const { ledger } of nodes) await takeNext(ledger, { proposer: keys[0]!, nowMs: clock.nowMs(), own });
  const [node] = nodes;
  const statement = { round: 0, stage: 0, stateHash: new Uint8Array(32).fill(7) };
  assert.ok(node!.transactions.submit(node!.ledger.sign(stateStatement, statement, keys[0]!)).ok);
  await run(9_900);
  assert.equal(wakes.length, 0);
  await run(200);
  assert.equal(wakes.length, 2);
  // Nobody has taken it: a block goes by, and it is remembered.
  node!.transactions.noteBlock();
  await run(5_000);
  const later = node!.ledger.mempool.newestNonce(ids[0]!) + 1;
  assert.ok(node!.transactions.submit(pay(1n, later)).ok);
  await run(300);
  assert.equal(wakes.filter(([index]) => index === 0).length, 2, 'at the time of the more urgent one');
  await run(60_000);
  assert.equal(wakes.filter(([index]) => index === 0).length, 2, 'and not again');
});

test('its own are said again until a block holds them, for somebody may have been away', async () => {
  const { net, nodes, pay, run, waiting } = await group(3);
  net.link = (_from, to) => ({ delayMs: 2, lost: to === net.ids[2] });
  const sent = nodes[0]!.transactions.submit(pay(1n, 1));
  assert.ok(sent.ok);
  await run(1_000);
  assert.deepEqual(waiting(), [1, 1, 0]);
  net.link = undefined;
  await run(30_000);
  assert.deepEqual(waiting(), [1, 1, 1]);
  let said = 0;
  const { publish } = nodes[0]!.transport;
  nodes[0]!.transport.publish = (...call) => {
    said++;
    return publish(...call);
  };
  for (const { ledger } of nodes)
    await takeNext(ledger, {
      proposer: net.keys[0]!,
      nowMs: net.clock.nowMs(),
      waiting: [sent.value.transaction],
    });
  nodes[0]!.transactions.noteBlock();
  await run(120_000);
  assert.equal(said, 0);
  assert.deepEqual(waiting(), [0, 0, 0]);
});

test('closed, it hears nothing, says nothing and wakes nobody', async () => {
  const { nodes, pay, run, wakes, waiting } = await group(2);
  assert.ok(nodes[0]!.transactions.submit(pay(1n, 1)).ok);
  for (const { transactions } of nodes) transactions.close();
  await run(60_000);
  assert.equal(wakes.length, 0);
  assert.deepEqual(waiting(), [1, 0]);
});
