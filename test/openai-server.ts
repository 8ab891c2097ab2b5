/** The routes of a node with a scripted model on a real port, and OpenAI's own client: for tests. */
import type { TestContext } from 'node:test';
import OpenAI from 'openai';
import { createApi } from '../src/api/app.ts';
import type { ApiKey } from '../src/api/key-accounts.ts';
import { keepStatus } from '../src/api/status.ts';
import { systemClock } from '../src/platform/nodejs/clock.ts';
import { startHttpServer } from '../src/platform/nodejs/http-server.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { seededRandom } from '../src/std/random.ts';
import { testAccounts } from './key-accounts.ts';
import { sampleLedgerStatus, samplePaymentStatus } from './ledger-status.ts';
import { type Script, scriptedGenerator } from './scripted-generator.ts';

export const model = 'scripted';

/** What control routes want. */
export const nodeToken = 'sixteen-characters';

const pipeline = {
  replicas: [1],
  queue: {},
  queueRefused: 0,
  utilisation: null,
  starving: false,
  failovers: 0,
  lostMicrobatches: 0,
  convictedDrivers: 0,
};

interface Extras {
  readonly generationsMax?: number;
  readonly apiKeys?: readonly (string | ApiKey)[];
}

export async function serve(t: TestContext, script: Script, { apiKeys = [], generationsMax }: Extras = {}) {
  const generator = scriptedGenerator(script);
  const status = keepStatus({
    pid: 1,
    version: '0.1.0',
    nodeId: 'ab'.repeat(32),
    network: { name: 'test', id: 'cd'.repeat(32) },
    parameters: 1,
    stage: { index: 0, count: 1, firstLayer: 0, endLayer: 4, roles: ['driver', 'validator'] },
    aggregator: { name: 'default', toleratedHostile: 0 },
    engine: { id: 'native-cpu', provider: 'cpu' },
    startedAtMs: 0,
  });
  const app = createApi({
    status: () => status.status(0, pipeline, sampleLedgerStatus, samplePaymentStatus),
    subscribe: () => () => undefined,
    stop: () => undefined,
    token: nodeToken,
    clock: systemClock(),
    text: {
      generator,
      random: seededRandom(sha256(utf8('test'))),
      keys: await testAccounts(apiKeys),
      ...(generationsMax !== undefined && { generationsMax }),
    },
  });
  const server = await startHttpServer({ fetch: app.fetch, port: 0 });
  t.after(() => server.close());
  const clientWith = (apiKey = 'any') => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
  const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
  return { generator, client: clientWith(), clientWith, url: server.url, metrics };
}
