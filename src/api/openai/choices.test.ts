import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scriptedGenerator } from '../../../test/scripted-generator.ts';
import { openChoices } from './choices.ts';

const request = { prompt: [1], maxTokens: 1000, temperature: 1, topP: 1, seed: 0, stop: [] };

test('choices run at the same time, at most one part ahead of the reader', async () => {
  const generator = scriptedGenerator({ answer: () => 'abc', isEndless: true });
  const choices = openChoices(generator, [request, request, request], new AbortController().signal);
  const taken = [0, 0, 0];
  for (let part = 0; part < 30; part++) {
    const item = await choices.next();
    taken[item!.index]! += 1;
  }
  for (const count of taken) assert.ok(count >= 8, `one of three was given ${count} of 30`);
  await new Promise(setImmediate);
  assert.ok(generator.drawn() <= 33, `${generator.drawn()} drawn, 30 taken`);
  await choices.close();
  assert.equal(generator.running(), 0);
});

test('the failure of one choice ends all, after what came before it', async () => {
  let calls = 0;
  const generator = scriptedGenerator({
    answer: () => 'abc',
    beforeToken: () => {
      calls += 1;
      if (calls > 4) throw new Error('lost');
    },
  });
  const choices = openChoices(generator, [request, request], new AbortController().signal);
  const read = async () => {
    while (await choices.next());
  };
  await assert.rejects(read(), { message: 'lost' });
  assert.equal(await choices.next(), undefined);
  await choices.close();
  assert.equal(generator.running(), 0);
});

test('an aborted signal ends the generations and is thrown', async () => {
  const generator = scriptedGenerator({ answer: () => 'a', isEndless: true });
  const stop = new AbortController();
  const choices = openChoices(generator, [request], stop.signal);
  assert.equal((await choices.next())?.index, 0);
  stop.abort(new Error('left'));
  await assert.rejects(
    async () => {
      while (await choices.next());
    },
    { message: 'left' },
  );
  await choices.close();
  assert.equal(generator.running(), 0);
});
