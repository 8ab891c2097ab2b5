/** Real processes, OpenAI's own client: a gateway earns by training and pays the node that holds the other stage. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import OpenAI, { RateLimitError } from 'openai';
import type { NodeStatus } from '../../src/api/status.ts';
import { freePorts } from '../../src/cli/child-nodes.ts';
import { defaultLedger } from '../../src/peer/policy.ts';
import { createHarness } from './cluster-harness.ts';

const customer = 'the-key-of-a-customer';
const innerSteps = 4;
/** Micro-NEURO for 1,000 tokens: the other stage has half of it. */
const tokenPrice = 100_000;

async function json<T>(url: string, token?: string): Promise<T> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  return (await (await fetch(url, { headers })).json()) as T;
}

interface ClaimPage {
  readonly transactions: readonly { readonly author: string; readonly body: { readonly amount: string } }[];
}

test('a gateway pays for what its clients ask, on the ledger of all', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'neuroshard-keys-'));
  const keyFile = join(folder, 'keys');
  await writeFile(keyFile, `${customer} name=customer tokens=360\n`);
  const [apiPort] = await freePorts(1);
  const harness = await createHarness({
    nodes: 2,
    innerSteps,
    apiPort: apiPort!,
    training: { stages: 2, microbatches: 2 },
    ledger: {
      ...defaultLedger(innerSteps, 2),
      // Nobody audits here: what is earned can be spent soon.
      ...{ rewardPerBatch: 1_000_000, auditsPerBlockMax: 0, bondProofs: 0 },
      auditRates: [{ below: Number.MAX_SAFE_INTEGER, rate: 1000 }],
      ...{ tokenPrice, unpaidTokensMax: 64 },
    },
    nodeArgs: ['--api-key-file', keyFile],
  });
  const api = `http://127.0.0.1:${apiPort}/api`;
  const status = () => json<NodeStatus>(`${api}/status`);
  const until = async (what: string, holds: () => Promise<boolean>) => {
    for (let tries = 0; tries < 300; tries++) {
      if (await holds()) return;
      await pause(100);
    }
    assert.fail(`never: ${what}`);
  };
  try {
    const [gateway, other] = harness.cluster.nodes;
    harness.startAll();
    const earned = () =>
      harness.events('node-1').some((event) => event.type === 'block' && Number(event.balance) > 100_000);
    await harness.until('the gateway has earned something', earned);
    const client = new OpenAI({
      baseURL: `http://127.0.0.1:${apiPort}/v1`,
      apiKey: customer,
      maxRetries: 0,
    });
    const model = (await client.models.list()).data[0]!.id;
    const ask = (seed: number) =>
      client.completions.create({ model, prompt: 'Peace', max_tokens: 50, temperature: 1, seed });
    let tokens = 0;
    // Its credit of 360 tokens ends: the last answer has what is left.
    await assert.rejects(
      async () => {
        for (let seed = 0; seed < 20; seed++) tokens += (await ask(seed)).usage!.total_tokens;
      },
      (error) => error instanceof RateLimitError && error.code === 'insufficient_quota',
    );
    assert.ok(tokens <= 360 && tokens > 300, `${tokens}`);
    await until('the other node has claimed', async () => BigInt((await status()).payments.paid) > 0n);
    const claims = await json<ClaimPage>(`${api}/ledger/accounts/${gateway!.nodeId}/history?kind=claim`);
    const { payments } = await status();
    assert.ok(claims.transactions.length > 0);
    assert.ok(claims.transactions.every(({ author }) => author === other!.nodeId));
    assert.ok(BigInt(claims.transactions[0]!.body.amount) <= BigInt(payments.paid));
    assert.ok(BigInt(payments.paid) <= BigInt(payments.signed));
    // Of each text the last token is drawn and not computed any further; the end of a text may be one of them.
    const price = (tokenPrice / 2) * (tokens - 8);
    const owed = 1000 * (Number(payments.signed) + Number(payments.due));
    assert.ok(Math.abs(owed - price) <= 16 * tokenPrice, `${owed} for ${tokens}`);
    const token = (await readFile(join(gateway!.directory, 'api.token'), 'utf8')).trim();
    const { keys } = await json<{ keys: { id: string; spent: string }[] }>(`${api}/keys`, token);
    assert.equal(Number(keys[0]!.spent), (tokens * tokenPrice) / 1000);
    const { receipts } = await json<{ receipts: unknown[] }>(`${api}/keys/${keys[0]!.id}/receipts`, token);
    assert.ok(receipts.length >= 6);
  } finally {
    await harness.close();
    await rm(folder, { recursive: true, force: true });
  }
});
