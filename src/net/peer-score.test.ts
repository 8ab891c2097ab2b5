import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { createPeerScores, defaultScorePolicy, type ScorePolicy } from './peer-score.ts';

const policy: ScorePolicy = {
  points: { malformed: 40, 'bad-signature': 100 },
  otherPoints: 10,
  healPointsPerMinute: 10,
  refuseAtPoints: 100,
  refuseMs: 5_000,
};

test('points add up to a refusal, which ends and starts afresh', async () => {
  const clock = createVirtualClock();
  const scores = createPeerScores(clock, policy);
  assert.equal(scores.penalize('p', 'malformed'), false);
  assert.equal(scores.penalize('p', 'malformed'), false);
  assert.equal(scores.isRefused('p'), false);
  assert.equal(scores.penalize('p', 'malformed'), true);
  assert.equal(scores.isRefused('p'), true);
  assert.equal(scores.penalize('p', 'bad-signature'), false, 'already refused');
  await clock.advance(5_000);
  assert.equal(scores.isRefused('p'), false);
  assert.equal(scores.points('p'), 0);
  assert.equal(scores.penalize('p', 'bad-signature'), true);
});

test('points heal with time', async () => {
  const clock = createVirtualClock();
  const scores = createPeerScores(clock, policy);
  scores.penalize('p', 'malformed');
  await clock.advance(60_000);
  assert.equal(scores.points('p'), 30);
  await clock.advance(600_000);
  assert.equal(scores.points('p'), 0);
  for (let minute = 0; minute < 100; minute++) {
    assert.equal(scores.penalize('p', 'some-other-code'), false, `minute ${minute}`);
    await clock.advance(60_000);
  }
});

test('peers do not share points, and unknown peers have none', () => {
  const scores = createPeerScores(createVirtualClock(), policy);
  scores.penalize('p', 'bad-signature');
  assert.equal(scores.isRefused('q'), false);
  assert.equal(scores.points('q'), 0);
});

test('remembers a bounded number of peers', () => {
  const scores = createPeerScores(createVirtualClock(), policy, 2);
  for (const peer of ['a', 'b', 'c']) scores.penalize(peer, 'malformed');
  assert.deepEqual(
    ['a', 'b', 'c'].map((peer) => scores.points(peer)),
    [0, 40, 40],
  );
});

test('by default a few malformed messages are enough, and a lossy link is not', async () => {
  const clock = createVirtualClock();
  const scores = createPeerScores(clock, defaultScorePolicy);
  const refusals = Array.from({ length: 5 }, () => scores.penalize('hostile', 'malformed'));
  assert.deepEqual(refusals, [false, false, false, false, true]);
  for (let i = 0; i < 100; i++) {
    assert.equal(scores.penalize('lossy', 'stalled'), false);
    await clock.advance(30_000);
  }
});
