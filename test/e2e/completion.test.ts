/**
 * The official OpenAI client asks a node that holds one stage of two, while the network trains; the replicas that hold
 * the other stage are stopped and killed in the middle of the answer.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { freePorts } from '../../src/cli/child-nodes.ts';
import { createHarness, type Harness } from './cluster-harness.ts';

const validators = ['node-2', 'node-4'] as const;
const maxTokens = 24;

/** The first round does not end: an answer depends on the round it began in. */
function servingHarness(apiPort: number): Promise<Harness> {
  return createHarness({
    nodes: 4,
    innerSteps: 100_000,
    apiPort,
    training: { stages: 2, microbatches: 2 },
  });
}

async function startServing(harness: Harness, apiPort: number): Promise<{ client: OpenAI; model: string }> {
  harness.startAll();
  const names = harness.cluster.nodes.map(({ spec }) => spec.name);
  const trains = (name: string) => harness.events(name).some(({ type }) => type === 'step');
  await harness.until('all train', () => names.every(trains));
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${apiPort}/v1`, apiKey: 'none', maxRetries: 0 });
  const models = await client.models.list();
  return { client, model: models.data[0]!.id };
}

interface Streamed {
  readonly text: string;
  readonly tokens: number;
}

/** The whole streamed answer; `disturb` is called once, after the third part. */
async function stream(client: OpenAI, model: string, disturb?: () => void): Promise<Streamed> {
  const parts = await client.completions.create({
    model,
    prompt: 'The people of the United States',
    max_tokens: maxTokens,
    temperature: 0.8,
    seed: 5,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let tokens = 0;
  let count = 0;
  for await (const part of parts) {
    text += part.choices[0]?.text ?? '';
    tokens = part.usage?.completion_tokens ?? tokens;
    count++;
    if (count === 3) disturb?.();
  }
  return { text, tokens };
}

test('a streamed completion through two stages survives kill -STOP and kill -9 of the stage it uses', async () => {
  const [apiPort] = await freePorts(1);
  const harness = await servingHarness(apiPort!);
  try {
    const { client, model } = await startServing(harness, apiPort!);
    const calm = await stream(client, model);
    assert.equal(calm.tokens, maxTokens);
    const pidOf = (name: string) => harness.group.get(name)!.pid!;
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
      for (const name of validators) {
        // Which of the two this answer goes through is the router's choice: one of the two runs meets it.
        const disturbed = await stream(client, model, () => process.kill(pidOf(name), signal));
        assert.deepEqual(disturbed, calm, `${signal} of ${name}`);
        // Nobody is asked any more.
        if (signal === 'SIGKILL' && name === validators.at(-1)) continue;
        if (signal === 'SIGSTOP') process.kill(pidOf(name), 'SIGCONT');
        else {
          await harness.until(`${name} is gone`, () => harness.group.get(name)?.isRunning() !== true);
          harness.start(name);
        }
        const before = harness.events(name).length;
        await harness.until(`${name} is back`, () => harness.events(name).length > before + 3);
      }
    }
  } finally {
    await harness.close();
  }
});
