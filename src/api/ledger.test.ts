/** The ledger's routes over a real state, store and mempool, without a network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testLedger } from '../../test/ledger-port.ts';
import { ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { decodeRow } from '../ledger/row-codec.ts';
import { commit } from '../ledger/state.ts';
import { verifyRowProof } from '../ledger/state-tree.ts';
import { encodeTransaction, signTransaction, transactionBytesMax } from '../ledger/transaction.ts';
import { escrow } from '../ledger/transactions/escrow.ts';
import { stake } from '../ledger/transactions/stake.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { unstake } from '../ledger/transactions/unstake.ts';
import { fromHex } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { createApi } from './app.ts';
import { createLedgerRoutes } from './ledger.ts';

const alice = namedKey('alice');
const bob = namedKey('bob');

async function setUp() {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 10_000_000n);
  world.endow(bob.nodeId, 500n);
  const ledger = await testLedger(world);
  const app = createLedgerRoutes(ledger.port);
  const get = async (path: string, status = 200) => {
    const response = await app.request(path);
    assert.equal(response.status, status, `${path}: ${await response.clone().text()}`);
    return await response.json();
  };
  const post = (body: Uint8Array, type = 'application/octet-stream') =>
    app.request('/transactions', {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: new Uint8Array(body),
    });
  const pay = (amount: bigint) => world.sign(transfer, { to: bob.nodeId, amount }, alice);
  return { world, ledger, app, get, post, pay };
}

test('a signed transaction goes in, waits, and is final with its block', async () => {
  const { world, ledger, get, post, pay } = await setUp();
  const response = await post(encodeTransaction(pay(1_000n)));
  assert.equal(response.status, 202);
  const { id, final } = await response.json();
  assert.equal(final, false);
  assert.deepEqual(await get(`/transactions/${id}`), { final: false, id });
  assert.equal((await get(`/accounts/${alice.nodeId}`)).newestNonce, 1);
  await ledger.decide();
  const { timeMs, ...rest } = await get(`/transactions/${id}`);
  assert.ok(timeMs > 0);
  assert.deepEqual(rest, {
    ...{ final: true, id, kind: 'transfer', author: alice.nodeId, nonce: 1, block: 1, index: 0 },
    body: { to: bob.nodeId, amount: '1000' },
  });
  assert.equal((await get(`/accounts/${bob.nodeId}`)).balance, '1500');
  assert.equal((await get('/supply')).supply, '10000500');
  world.checkSupply();
});

test('what is refused has its code and a status that says why', async () => {
  const { world, get, post, pay } = await setUp();
  const good = pay(5n);
  assert.equal((await post(encodeTransaction(good))).status, 202);
  const { networkId } = world.constants;
  const old = signTransaction(networkId, transfer, { body: { to: bob.nodeId, amount: 1n }, nonce: 0 }, alice);
  const cases: readonly [body: Uint8Array, status: number, code: string][] = [
    [encodeTransaction(good), 409, 'known'],
    [encodeTransaction(old), 409, 'stale-nonce'],
    [encodeTransaction(pay(20_000_000n)), 422, 'overdrawn'],
    [encodeTransaction(world.sign(transfer, { to: alice.nodeId, amount: 1n }, alice)), 422, 'own-account'],
    [encodeTransaction({ ...pay(1n), kind: 'gift' }), 400, 'unknown-kind'],
    [encodeTransaction({ ...pay(1n), body: [1] }), 400, 'malformed-transfer'],
    [new Uint8Array(), 400, 'malformed'],
    [new Uint8Array([0x80]), 400, 'malformed-transaction'],
    [new Uint8Array(transactionBytesMax + 1), 413, 'too-large'],
  ];
  for (const [body, status, code] of cases) {
    const response = await post(body);
    assert.equal((await response.json()).error.code, code);
    assert.equal(response.status, status, code);
  }
  for (const type of ['application/json', 'text/plain'])
    assert.equal((await post(encodeTransaction(pay(2n)), type)).status, 415);
  assert.equal((await get(`/accounts/${alice.nodeId}`)).balance, '10000000');
});

test('an account says all it has, and proves it', async () => {
  const { world, ledger, get } = await setUp();
  ledger.add(world.sign(stake, { amount: 3_000n }, alice));
  ledger.add(world.sign(unstake, { amount: 1_000n }, alice));
  await ledger.decide();
  commit(world.state, [
    {
      table: 'prover',
      key: alice.nodeId,
      row: {
        ...{ publicKey: alice.publicKey, proofs: 3, nonce: 9, after: null, round: 1, step: 2, recentMs: [1] },
        ...{
          bond: 40n,
          openDuties: 0,
          challenged: 0,
          cleared: null,
          answered: 0,
          audits: 0,
          convicted: false,
        },
        vesting: [
          [1, 5n, 0],
          [2, 6n, 0],
        ],
      },
    },
  ]);
  const account = await get(`/accounts/${alice.nodeId}?proof=true`);
  const { balance, vesting, bond, nonce, newestNonce, proofs, unbonding, block } = account;
  assert.deepEqual([balance, account.stake, vesting, bond], ['9997000', '2000', '11', '40']);
  assert.deepEqual([nonce, newestNonce, proofs, block], [2, 2, 3, 1]);
  assert.equal(unbonding.length, 1);
  assert.equal(unbonding[0].amount, '1000');
  const proof = {
    siblings: account.proof.siblings.map(fromHex),
    leaf: { path: fromHex(account.proof.leaf.path), row: fromHex(account.proof.leaf.row) },
  };
  const row = fromHex(account.proof.row);
  assert.ok(verifyRowProof(world.state.root(), 'account', alice.nodeId, row, proof));
  const decoded = decodeRow('account', row);
  assert.ok(decoded.ok && decoded.value.stake === 2_000n);
  const nobody = await get(`/accounts/${'00'.repeat(32)}?proof=true`);
  assert.deepEqual([nobody.balance, nobody.proof.row], ['0', null]);
  for (const id of ['x', 'AB'.repeat(32), 'ab'.repeat(33)])
    assert.equal((await get(`/accounts/${id}`, 400)).error.code, 'bad-parameter');
});

test('blocks, histories and kinds come in pages that meet', async () => {
  const { world, ledger, get, pay } = await setUp();
  for (let number = 1; number <= 7; number++) {
    ledger.add(pay(BigInt(number)));
    if (number % 2 === 0) ledger.add(world.sign(stake, { amount: 1n }, bob));
    await ledger.decide();
  }
  const pages = async (path: string, name: string, cursor: string) => {
    const found = [];
    let next: string | null = null;
    do {
      const page: Record<string, unknown> = await get(
        `${path}${path.includes('?') ? '&' : '?'}limit=2${next === null ? '' : `&${cursor}=${next}`}`,
      );
      const items = page[name] as Record<string, unknown>[];
      assert.ok(items.length <= 2);
      found.push(...items);
      next = page.next as string | null;
    } while (next !== null);
    return found;
  };
  const blocks = await pages('/blocks', 'blocks', 'before');
  assert.deepEqual(
    blocks.map(({ number }) => number),
    [7, 6, 5, 4, 3, 2, 1],
  );
  assert.deepEqual(
    blocks.map(({ transactions }) => transactions),
    [1, 2, 1, 2, 1, 2, 1],
  );
  assert.equal((await pages('/transactions', 'transactions', 'before')).length, 10);
  assert.equal((await pages('/transactions?kind=stake', 'transactions', 'before')).length, 3);
  const history = await pages(`/accounts/${bob.nodeId}/history`, 'transactions', 'before');
  assert.equal(history.length, 10);
  assert.deepEqual(history[2]!.body, { to: bob.nodeId, amount: '6' });
  const ofAlice = await pages(`/accounts/${alice.nodeId}/history?kind=transfer`, 'transactions', 'before');
  assert.deepEqual(
    ofAlice.map(({ block, index }) => [block, index]),
    [7, 6, 5, 4, 3, 2, 1].map((number) => [number, 0]),
  );
  assert.deepEqual(await pages('/proofs', 'proofs', 'before'), []);
  const accounts = await pages('/accounts', 'accounts', 'after');
  assert.deepEqual(
    accounts.map(({ id }) => id),
    world.state.keys('account'),
  );
  assert.equal((await pages('/validators', 'validators', 'after')).length, 4);
  const block = await get('/blocks/2?payload=true');
  assert.deepEqual(
    block.content.map(({ kind }: { kind: string }) => kind),
    ['transfer', 'stake'],
  );
  assert.equal(block.payload.length, 2 * block.payloadBytes);
  assert.equal((await get('/blocks/2')).payload, undefined);
  assert.equal((await get('/blocks/8', 404)).error.code, 'no-block');
});

test('the head, validators, audits, escrows and slashes are shown', async () => {
  const { world, ledger, get } = await setUp();
  const expiresMs = world.context().timeMs + 60_000;
  ledger.add(world.sign(escrow, { payee: bob.nodeId, amount: 77n, expiresMs }, alice));
  await ledger.decide();
  const slashRow = { node: bob.nodeId, reason: 'equivocation', amount: 9n, reporter: alice.nodeId };
  const slashes = ['000000000001/0000', '000000000001/0001', '000000000002/0000'];
  commit(world.state, [
    ...slashes.map((key) => ({ table: 'slash' as const, key, row: slashRow })),
    {
      table: 'duty',
      key: 'ab'.repeat(32),
      row: {
        ...{ prover: bob.nodeId, proof: 1, first: true, intervals: 4, drawAt: 3, interval: -1, auditors: [] },
        ...{ tier: 0, dueAt: 0, dueMs: 0, commitments: [], reveals: [], reward: 12n, contribution: null },
      },
    },
  ]);
  const head = await get('/');
  assert.equal(head.number, 1);
  assert.equal(fromHex(head.networkId).length, 32);
  const { validators, total } = await get('/validators');
  assert.equal(total, 4);
  assert.deepEqual(
    [validators[0].weight > 0, validators[0].founderWeight, validators[0].stake, validators[0].jailedAt],
    [true, 1, '0', null],
  );
  const { audits } = await get('/audits');
  assert.deepEqual([audits[0].id, audits[0].reward], ['ab'.repeat(32), '12']);
  assert.equal((await get(`/accounts/${bob.nodeId}`)).vesting, '12');
  const { escrows } = await get('/escrows');
  assert.deepEqual([escrows[0].amount, escrows[0].payer], ['77', alice.nodeId]);
  const first = await get('/slashes?limit=2');
  const second = await get(`/slashes?limit=2&before=${first.next}`);
  const shown = [...first.slashes, ...second.slashes];
  assert.deepEqual(
    shown.map(({ id }) => id),
    slashes.toReversed(),
  );
  assert.equal(second.next, null);
  assert.deepEqual([shown[0].block, shown[0].amount, shown[0].reason], [2, '9', 'equivocation']);
});

test('wrong parameters are coded failures', async () => {
  const { get } = await setUp();
  for (const path of [
    '/blocks?limit=0',
    '/blocks?limit=101',
    '/blocks?limit=1e2',
    '/blocks?limit=',
    '/blocks?before=-1',
    '/blocks?before=99999999999999999999',
    '/blocks?before=x',
    '/blocks?limit=1&limit=2',
    '/blocks/one',
    '/blocks/1?payload=yes',
    '/transactions?before=1',
    '/transactions?before=1.2.3',
    '/transactions?before=1.16384',
    '/transactions?kind=DROP%20TABLE',
    '/transactions?limit=51',
    '/transactions/abc',
    '/accounts?after=..%2f..',
    '/validators?limit=x',
  ])
    assert.equal((await get(path, 400)).error.code, 'bad-parameter', path);
  assert.equal((await get('/blocks?limt=5', 400)).error.code, 'unknown-parameter');
  assert.equal((await get(`/transactions/${'ab'.repeat(32)}`, 404)).error.code, 'no-transaction');
});

test('a ledger that cannot be read says so, and it is mounted only where there is one', async () => {
  const { ledger } = await setUp();
  const failing = async () => {
    throw new CodedError('ledger-damaged', 'the file is damaged');
  };
  const port = { ...ledger.port, store: { ...ledger.store, blocks: failing } };
  const options = {
    status: () => {
      throw new Error('not asked for');
    },
    subscribe: () => () => undefined,
    stop: () => undefined,
    token: 'sixteen-characters',
    clock: { nowMs: () => 0, setTimer: () => () => undefined },
  };
  const api = createApi({ ...options, ledger: port });
  const response = await api.request('/api/ledger/blocks');
  assert.equal(response.status, 503);
  assert.equal((await response.json()).error.code, 'ledger-damaged');
  assert.equal((await api.request('/api/ledger')).status, 200);
  assert.equal((await api.request('/api/ledger/nothing')).status, 404);
  assert.equal((await createApi(options).request('/api/ledger')).status, 404);
});
