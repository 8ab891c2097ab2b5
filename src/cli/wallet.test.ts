/** The wallet's commands against a ledger served on loopback: real keys, real signatures, blocks when something waits. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Hono } from 'hono';
import { runCommand } from '../../test/cli-run.ts';
import { type TestLedger, testLedger } from '../../test/ledger-port.ts';
import { type LedgerWorld, ledgerWorld } from '../../test/ledger-world.ts';
import { createLedgerRoutes } from '../api/ledger.ts';
import { generateKeyPair, type KeyPair } from '../identity/keys.ts';
import { type HttpServer, startHttpServer } from '../platform/nodejs/http-server.ts';
import { encryptKey } from '../platform/nodejs/key-encryption.ts';
import { createKeyFile } from '../platform/nodejs/key-file.ts';
import { register } from './wallet.ts';

const folder = mkdtempSync(join(tmpdir(), 'neuroshard-wallet-'));
const alice = generateKeyPair();
const bob = generateKeyPair();
const aliceFile = join(folder, 'alice.key');
let world: LedgerWorld;
let ledger: TestLedger;
let server: HttpServer;
let deciding = true;
let timer: NodeJS.Timeout;

before(async () => {
  await createKeyFile(aliceFile, alice);
  world = ledgerWorld();
  world.endow(alice.nodeId, 100_000_000n);
  ledger = await testLedger(world);
  const app = new Hono().route('/api/ledger', createLedgerRoutes(ledger.port));
  server = await startHttpServer({ fetch: (request) => app.fetch(request), port: 0 });
  timer = setInterval(() => {
    if (deciding && ledger.mempool.size().transactions > 0) void ledger.decide();
  }, 20);
});
after(async () => {
  clearInterval(timer);
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

function wallet(...argv: string[]) {
  return runCommand(register, ['wallet', ...argv]);
}

const atNode = () => ['--key', aliceFile, '--node', server.url];

async function json(...argv: string[]) {
  const { code, stdout } = await wallet(...argv, '--json');
  const document = JSON.parse(stdout);
  return { code, document, error: document.error?.code as string | undefined };
}

test('a new key is made once, and its address is known without a node', async () => {
  const data = join(folder, 'new', 'data');
  const made = await json('new', '--data', data);
  assert.equal(made.code, 0);
  const { address, file, encrypted } = made.document;
  assert.deepEqual([file, encrypted], [join(data, 'node.key'), false]);
  assert.equal((await wallet('address', '--data', data)).stdout, `${address}\n`);
  const content = readFileSync(file, 'utf8');
  const again = await json('new', '--data', data);
  assert.deepEqual([again.code, again.error], [1, 'already-exists']);
  assert.equal(readFileSync(file, 'utf8'), content);
  assert.equal((await json('address', '--data', join(folder, 'nowhere'))).error, 'not-found');
});

test('a payment is final when the command ends, and seen by both', async () => {
  const sent = await json('send', bob.nodeId.toUpperCase(), '12.5', ...atNode());
  assert.equal(sent.code, 0);
  const { id, final, amount, to, from, kind } = sent.document;
  assert.deepEqual([final, amount, to, from, kind], [true, '12500000', bob.nodeId, alice.nodeId, 'transfer']);
  const balance = await wallet('balance', ...atNode());
  assert.match(balance.stdout, /^balance {4}87\.5 NEURO$/m);
  const theirs = await json('balance', bob.nodeId, '--node', server.url);
  assert.equal(theirs.document.balance, '12500000');
  const history = await json('history', bob.nodeId, '--node', server.url);
  assert.equal(history.document.transactions[0].id, id);
  const text = await wallet('history', bob.nodeId, '--node', server.url);
  assert.match(text.stdout, new RegExp(`\\+12\\.5 +from ${alice.nodeId.slice(0, 16)}`));
  assert.match((await wallet('history', ...atNode())).stdout, /-12\.5 +to /);
});

test('stake goes in and begins to come back', async () => {
  assert.equal((await json('stake', '10', ...atNode())).code, 0);
  const back = await wallet('unstake', '4', ...atNode());
  assert.match(back.stdout, /^4 NEURO on their way back: final in block \d+\ntransaction [0-9a-f]{64}\n$/);
  const { document } = await json('balance', ...atNode());
  assert.deepEqual([document.stake, document.unbonding[0].amount], ['6000000', '4000000']);
  assert.match((await wallet('balance', ...atNode())).stdout, /^unbonding {2}4 NEURO, the first 4 from 20/m);
  const page = await json('history', '--limit', '1', ...atNode());
  assert.equal(page.document.transactions.length, 1);
  const next = await json('history', '--limit', '1', '--before', page.document.next, ...atNode());
  assert.equal(next.document.transactions[0].kind, 'stake');
});

test('many payments at once need no waiting for each other', async () => {
  deciding = false;
  const ids = new Set<string>();
  for (let each = 0; each < 3; each++) {
    const sent = await json('send', bob.nodeId, '0.000001', '--no-wait', ...atNode());
    assert.deepEqual([sent.document.final, sent.document.block], [false, null]);
    ids.add(sent.document.id);
  }
  assert.equal(ids.size, 3);
  deciding = true;
  assert.equal((await json('send', bob.nodeId, '0.000001', ...atNode())).document.final, true);
  const { document } = await json('history', bob.nodeId, '--node', server.url);
  for (const id of ids) assert.ok(document.transactions.some((one: { id: string }) => one.id === id));
});

test('what cannot be done is one clear line, and nothing is sent', async () => {
  const before_ = world.balance(alice.nodeId);
  const cases: readonly [argv: readonly string[], code: string, exit: number][] = [
    [['send', bob.nodeId, '1000000'], 'insufficient-balance', 1],
    [['stake', '1000000'], 'insufficient-balance', 1],
    [['unstake', '1000000'], 'insufficient-stake', 1],
    [['send', bob.nodeId, '1.0000001'], 'bad-amount', 2],
    [['send', bob.nodeId, 'ten'], 'bad-amount', 2],
    [['send', bob.nodeId, '-5'], 'bad-amount', 2],
    [['send', bob.nodeId, '0'], 'zero-amount', 2],
    [['stake', '99999999999999'], 'amount-too-large', 2],
    [['send', 'bob', '1'], 'bad-address', 2],
    [['send', alice.nodeId, '1'], 'own-account', 2],
    [['send', bob.nodeId], 'missing-argument', 2],
    [['history', '--before', 'x'], 'bad-parameter', 1],
    [['history', '--limit', '51'], 'out-of-range', 2],
  ];
  for (const [argv, code, exit] of cases) {
    const result = await json(...argv, ...atNode());
    assert.deepEqual([result.error, result.code], [code, exit], argv.join(' '));
    const { stderr } = await wallet(...argv, ...atNode());
    assert.match(stderr, /^neuroshard: [^\n]+\n$/, argv.join(' '));
  }
  assert.equal(world.balance(alice.nodeId), before_);
});

test('no node, something else, and no address are told apart', async (t) => {
  const other = await startHttpServer({ fetch: () => new Response('hello'), port: 0 });
  const lying = await startHttpServer({ fetch: () => Response.json({ number: 1 }), port: 0 });
  const rude = await startHttpServer({
    fetch: () => Response.json({ error: { code: 'x-y', message: '\x1b[2Jgone\n' } }, { status: 400 }),
    port: 0,
  });
  t.after(() => Promise.all([other.close(), lying.close(), rude.close()]));
  const ask = (node: string) => json('balance', '--key', aliceFile, '--node', node);
  assert.equal((await ask(other.url)).error, 'not-a-node');
  assert.equal((await ask(lying.url)).error, 'not-a-node');
  const refused = await ask(rude.url);
  assert.equal(refused.error, 'x-y');
  assert.ok(!refused.document.error.message.includes('\x1b'));
  assert.equal((await ask('http://127.0.0.1:1')).error, 'no-node');
  for (const node of ['ftp://x', 'http://', 'http://x/path', 'not a url']) {
    assert.equal((await ask(node)).error, 'bad-node', node);
  }
});

test('a payment that no block takes in time is said to wait', async () => {
  deciding = false;
  const waiting = await json('send', bob.nodeId, '1', '--timeout', '1', ...atNode());
  assert.deepEqual([waiting.code, waiting.error], [1, 'not-final']);
  deciding = true;
});

test('an encrypted key signs with its passphrase, from a file or the environment only', async (t) => {
  const file = join(folder, 'hidden.key');
  const key: KeyPair = generateKeyPair();
  writeFileSync(file, await encryptKey(key, 'open sesame', { n: 2 ** 14, r: 8, p: 1 }), { mode: 0o600 });
  world.endow(key.nodeId, 5_000_000n);
  assert.equal((await wallet('address', '--key', file)).stdout, `${key.nodeId}\n`);
  const pay = (...more: string[]) =>
    json('send', bob.nodeId, '1', '--key', file, '--node', server.url, ...more);
  assert.equal((await pay()).error, 'passphrase-needed');
  const words = join(folder, 'words');
  writeFileSync(words, 'wrong\n');
  assert.equal((await pay('--passphrase-file', words)).error, 'wrong-passphrase');
  writeFileSync(words, 'open sesame\r\nanything\n');
  assert.equal((await pay('--passphrase-file', words)).code, 0);
  process.env.NEUROSHARD_PASSPHRASE = 'open sesame';
  t.after(() => delete process.env.NEUROSHARD_PASSPHRASE);
  assert.equal((await pay()).code, 0);
  assert.equal((await pay('--passphrase', 'open sesame')).error, 'unknown-option');
});

test('a new key is hidden when a passphrase is given, and not made when it cannot be asked for', async () => {
  const words = join(folder, 'new-words');
  writeFileSync(words, 'a new one\n');
  const file = join(folder, 'new-hidden.key');
  const made = await json('new', '--key', file, '--passphrase-file', words);
  assert.equal(made.document.encrypted, true);
  assert.equal((await json('address', '--key', file)).document.address, made.document.address);
  const unasked = join(folder, 'unasked.key');
  assert.equal((await json('new', '--key', unasked, '--encrypt')).error, 'passphrase-needed');
  assert.ok(!existsSync(unasked));
});
