/** Inference paid from end to end, with real ledgers, consensus and decode stages, and those who would rather not pay. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { compilingOnce } from '../../test/decode-network.ts';
import { assertSameLedger } from '../../test/ledger-group.ts';
import { createPaymentGroup, type PaymentGroup, type PaymentGroupOptions } from '../../test/payment-group.ts';
import { settle } from '../../test/virtual-network.ts';
import { chainOf, moneyInAll } from '../ledger/money.ts';
import { type PaymentReceipt, signReceipt } from '../ledger/receipt.ts';
import { claim } from '../ledger/transactions/claim.ts';
import { escrow } from '../ledger/transactions/escrow.ts';
import { receiptProtocol } from '../net/protocol.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { reject } from '../std/outcome.ts';
import { encodeReceipt } from './receipt-wire.ts';

const native = createNativeEngine({ threads: 1 });
const engine = compilingOnce(native);
after(() => native.close());

const policy = { tokenPrice: 100_000, unpaidTokensMax: 100 };
const million = 1_000_000n;
/** Micro-NEURO for one position of the whole path. */
const each = 100n;

function start(more: Partial<PaymentGroupOptions> = {}): Promise<PaymentGroup> {
  return createPaymentGroup({ engine, stages: 3, balance: million, policy, ...more });
}

function supplyHolds({ caller, nodes }: PaymentGroup) {
  assertSameLedger([...nodes, caller]);
  const state = caller.ledger.state();
  const { minted, burned } = chainOf(state);
  assert.equal(moneyInAll(state), minted - burned);
  return burned;
}

test('who serves is paid by claims on the ledger: 15, 70 and 15 in the hundred, less 5 burned', async () => {
  const group = await start();
  for (let i = 0; i < 6; i++) await group.write({ prompt: [1 + i, 2, 3, 4] });
  await group.pass(60_000);
  const { caller, nodes } = group;
  const status = caller.payments.status();
  const { positions } = group.decode.nodes[0]![0]!.service.stats();
  assert.ok(positions > 300);
  assert.equal(status.bought, 3 * positions);
  assert.equal(status.due, '0');
  assert.equal(status.signed, String(each * BigInt(positions)));
  assert.equal(status.paid, status.signed);
  const burned = supplyHolds(group);
  const shares = nodes.map(({ key }) => Number(group.balance(key.nodeId)));
  const all = Number(status.paid);
  for (const [i, share] of [0.15, 0.7, 0.15].entries())
    assert.ok(Math.abs(shares[i]! - 0.95 * share * all) <= 20, `${shares} of ${all}`);
  assert.ok(Math.abs(Number(burned) - 0.05 * all) <= 60);
  assert.deepEqual(
    nodes.map(({ payments }) => payments.status().served),
    [positions, positions, positions],
  );
  assert.equal(nodes[1]!.payments.status().earned, String((BigInt(all) * 7n) / 10n));
  for (const { key, payments } of nodes) {
    const mine = payments.receipts();
    const theirs = caller.payments.receipts().filter(({ other }) => other === key.nodeId);
    assert.ok(
      mine.length > 0 && mine.every(({ role, receipt, claimed }) => role === 'payee' && receipt === claimed),
    );
    assert.deepEqual(
      theirs.map((one) => ({ ...one, role: 'payee', other: caller.key.nodeId })),
      mine,
    );
  }
  // What was not used comes back when the escrows have expired.
  const escrowed = BigInt(status.escrowed);
  assert.ok(escrowed > 0n);
  assert.equal(group.balance(caller.key.nodeId) + escrowed + BigInt(status.paid), million);
  await group.pass(3_700_000);
  assert.equal(caller.payments.status().escrowed, '0');
  assert.equal(group.balance(caller.key.nodeId), million - BigInt(status.paid));
  supplyHolds(group);
});

test('small use is free: nobody opens an escrow for a few words', async () => {
  const group = await start();
  await group.write({ maxTokens: 10 });
  await group.pass(10_000);
  assert.deepEqual(group.caller.ledger.state().keys('escrow'), []);
  assert.equal(group.balance(group.caller.key.nodeId), million);
  assert.equal(group.caller.payments.status().due, String(13n * each));
});

for (const [who, more] of [
  ['never pays', { neverPays: true }],
  ['has nothing', { balance: 0n }],
] as const) {
  test(`a caller that ${who} gets what is free, then a coded refusal; its sessions end, nothing changes`, async () => {
    const group = await start(more);
    const roots = () => group.nodes.map(({ ledger }) => toHex(ledger.state().root()));
    const before = roots();
    await group.write({ maxTokens: 60 });
    await assert.rejects(group.write({ maxTokens: 60 }), { code: 'payment-required' });
    await group.pass(1_000);
    const { service, decoder } = group.decode.nodes[0]![0]!;
    assert.equal(service.stats().positions, 100);
    assert.equal(decoder.sessions(), 0);
    assert.deepEqual(roots(), before);
    assert.ok(group.nodes[0]!.payments.status().refused > 0);
    // It is forgiven as time passes: small use goes on.
    await group.pass(1_800_000);
    await group.write({ maxTokens: 40 });
    await assert.rejects(group.write({ maxTokens: 60 }), { code: 'payment-required' });
  });
}

test('a node that holds the whole model pays nobody', async () => {
  const group = await start({ stages: 1, callerStage: 0 });
  for (let i = 0; i < 3; i++) await group.write({ prompt: [1 + i, 2, 3, 4] });
  const { bought, signed, due } = group.caller.payments.status();
  assert.deepEqual({ bought, signed, due }, { bought: 0, signed: '0', due: '0' });
});

test('a replica that dies in the middle is paid for what it answered, and no position is paid twice', async () => {
  const group = await start({ replicas: 2 });
  for (let i = 0; i < 3; i++) await group.write({ prompt: [1 + i, 2, 3, 4] });
  await group.write({}, (made) => {
    if (made !== 30) return;
    for (const { id, decoder } of group.decode.nodes[1]!)
      if (decoder.sessions() > 0) group.ledgers.net.hub.crash(id);
  });
  await group.pass(20_000);
  assert.equal(group.decode.failovers.length, 1);
  const status = group.caller.payments.status();
  const computed = group.decode.nodes.flat().reduce((sum, { service }) => sum + service.stats().positions, 0);
  // What the dead one was asked last it may have computed, and nobody heard of it.
  assert.ok(status.bought <= computed && status.bought >= computed - 32, `${status.bought} of ${computed}`);
  const owed = group.decode.nodes.map((replicas, i) => {
    const positions = replicas.reduce((sum, { service }) => sum + service.stats().positions, 0);
    return BigInt(positions) * [15n, 70n, 15n][i]!;
  });
  const all = owed.reduce((a, b) => a + b);
  assert.ok(BigInt(status.signed) + BigInt(status.due) <= all);
});

test('receipts are kept: a payee that was started again claims with them', async () => {
  const group = await start();
  for (let i = 0; i < 2; i++) await group.write({ prompt: [1 + i, 2, 3, 4] });
  await group.pass(3_000);
  const [node] = group.nodes;
  const { unclaimed } = node!.payments.status();
  assert.notEqual(unclaimed, '0');
  await settle(group.ledgers.net, node!.restartPayments());
  assert.equal(node!.payments.status().unclaimed, unclaimed);
  await group.pass(30_000);
  assert.equal(node!.payments.status().unclaimed, '0');
  assert.equal(node!.payments.status().earned, unclaimed);
});

test('many texts at once wait for one payment each time, and all are written', async () => {
  const group = await start({ policy: { ...policy, unpaidTokensMax: 128 } });
  const texts = Array.from({ length: 8 }, (_, i) => group.write({ prompt: [1 + i, 2, 3, 4] }));
  assert.deepEqual(await Promise.all(texts), new Array(8).fill(70));
  await group.pass(30_000);
  const { signed, due, bought } = group.caller.payments.status();
  const owed = (BigInt(bought) * each) / 3n;
  // Paid ahead at most once for each stage.
  const ahead = BigInt(signed) + BigInt(due) - owed;
  assert.ok(ahead >= 0n && ahead <= 32n * each, `${ahead}`);
  supplyHolds(group);
});

test('a server that takes money and gives nothing gets little, and only once', async () => {
  const group = await start({
    replicas: 2,
    meter: (honest, stage) => {
      let served = 0;
      const greedy = () =>
        served++ < 20 ? { ok: true as const, value: undefined } : reject('payment-required');
      return stage === 1 ? { ...honest, take: greedy } : honest;
    },
  });
  await group.write({ maxTokens: 15 });
  await assert.rejects(group.write(), { code: 'payment-required' });
  await assert.rejects(group.write(), { code: 'payment-required' });
  const { signed, bought } = group.caller.payments.status();
  const atMost = (BigInt(bought) + 2n * 25n) * 70n;
  assert.ok(BigInt(signed) <= atMost, `${signed} of ${atMost}`);
  await group.pass(1_000);
  for (const { decoder } of group.decode.nodes.flat()) assert.equal(decoder.sessions(), 0);
});

/** An escrow of the caller for the first node, on the ledger. */
async function opened(group: PaymentGroup, lifeMs = 3_600_000) {
  const [payee] = group.nodes;
  const { caller, ledgers } = group;
  const expiresMs = ledgers.net.clock.nowMs() + lifeMs;
  const sent = caller.ledger.send(escrow, { payee: payee!.key.nodeId, amount: 1_000n, expiresMs });
  assert.ok(sent.ok);
  const id = toHex(sent.value.id);
  const isThere = () => [...group.nodes, caller].every(({ ledger }) => ledger.state().get('escrow', id));
  await ledgers.until('the escrow', () => isThere());
  const { networkId } = ledgers.network;
  const sign = (amount: bigint, by = caller.key) => signReceipt(networkId, { escrow: id, amount }, by);
  const send = async (receipt: PaymentReceipt | Uint8Array, from = caller) => {
    const bytes = receipt instanceof Uint8Array ? receipt : encodeReceipt(receipt);
    const answer = await settle(
      ledgers.net,
      from.transport.request(payee!.key.nodeId, receiptProtocol, bytes),
    );
    return answer.ok ? 'accepted' : answer.code;
  };
  return { payee: payee!, id, sign, send };
}

test('receipts that are none are refused with a code, and change nothing', async () => {
  const group = await start();
  const { payee, sign, send } = await opened(group);
  const stranger = group.nodes[1]!;
  assert.equal(await send(sign(300n)), 'accepted');
  const good = sign(400n);
  const forged = { ...good, signature: sign(500n).signature };
  const refused: [string, PaymentReceipt | Uint8Array, typeof stranger?][] = [
    ['unknown-escrow', { ...good, escrow: '77'.repeat(32) }],
    ['not-growing', sign(200n)],
    ['beyond-escrow', sign(1_001n)],
    ['bad-signature', forged],
    ['wrong-payer', sign(400n, stranger.key)],
    ['wrong-payer', good, stranger],
    ['malformed', utf8('not a receipt')],
    ['malformed', encodeReceipt(good).slice(0, -1)],
  ];
  for (const [code, receipt, from] of refused) {
    assert.equal(await send(receipt, from), code);
    assert.equal(payee.payments.status().unclaimed, '300', code);
  }
  assert.ok(payee.penalties.length >= 5);
  assert.equal(await send(sign(300n)), 'accepted', 'the same again changes nothing');
  assert.equal(payee.payments.status().unclaimed, '300');
  assert.equal(await send(good), 'accepted');
  assert.equal(payee.payments.status().unclaimed, '400');
});

test('an escrow that is about to expire pays nobody any more', async () => {
  const group = await start();
  const { sign, send } = await opened(group, 90_000);
  assert.equal(await send(sign(100n)), 'accepted');
  await group.pass(40_000);
  assert.equal(await send(sign(200n)), 'escrow-expires');
});

test('a server that claims more than its receipts say gets nothing for it', async () => {
  const group = await start();
  const { payee, id, sign, send } = await opened(group);
  assert.equal(await send(sign(300n)), 'accepted');
  const me = payee.key.nodeId;
  const servers = { driver: me, workers: [], validator: me };
  const code = (body: PaymentReceipt) => {
    const sent = payee.ledger.send(claim, { ...body, ...servers });
    return sent.ok ? 'sent' : sent.code;
  };
  const before = toHex(payee.ledger.state().root());
  assert.equal(code({ ...sign(300n), amount: 301n }), 'bad-receipt');
  assert.equal(code(sign(301n, payee.key)), 'bad-receipt');
  assert.equal(code({ ...sign(300n), amount: 1_001n }), 'beyond-escrow');
  assert.equal(toHex(payee.ledger.state().root()), before);
  await group.pass(20_000);
  assert.equal(group.balance(me), 285n, 'what the receipt says, less the burn');
  assert.equal(payee.ledger.state().get('escrow', id)?.claimed, 300n);
});

test('a node that pays itself for inference loses the burn', async () => {
  const group = await start();
  const { caller, ledgers } = group;
  const me = caller.key.nodeId;
  const expiresMs = ledgers.net.clock.nowMs() + 3_600_000;
  for (let i = 0; i < 3; i++) {
    const sent = caller.ledger.send(escrow, { payee: me, amount: 100_000n, expiresMs });
    assert.ok(sent.ok);
    const id = toHex(sent.value.id);
    await ledgers.until('the escrow', () => caller.ledger.state().get('escrow', id) !== undefined);
    const receipt = signReceipt(ledgers.network.networkId, { escrow: id, amount: 100_000n }, caller.key);
    const claimed = caller.ledger.send(claim, { ...receipt, driver: me, workers: [me], validator: me });
    assert.ok(claimed.ok);
    await ledgers.until('the claim', () => caller.ledger.state().get('escrow', id) === undefined);
  }
  await group.pass(5_000);
  assert.equal(group.balance(me), million - 3n * 5_000n);
  assert.equal(supplyHolds(group), 15_000n);
});
