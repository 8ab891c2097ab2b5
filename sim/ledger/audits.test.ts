import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { installSha256 } from '../../src/std/hash.ts';
import { runEconomy } from './economy.ts';
import { assertSound, caughtShare, dayOfProfits, policyAt } from './scenario.ts';
import { falsifies, honest } from './strategies.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

test('who falsifies 20% of its proofs at 20% audited is caught within 50 with probability 0.85 or more', () => {
  const caught = caughtShare(1, 400);
  assert.ok(caught >= 0.85, String(caught));
});

test('no cheater earns more than 5% of honest profit, thrown-away names included; more honest work earns more', () => {
  const [full, half, ...rest] = dayOfProfits({ seed: 1, rate: 200, each: 1 });
  assert.equal(full!.share, 1);
  assert.ok(half!.share > 0 && half!.share < 1);
  const shares = rest.filter(({ name }) => name !== 'falsifies 1%');
  for (const { name, share } of shares) assert.ok(share <= 0.05, `${name} ${share}`);
  assert.ok(rest.every(({ share }) => share < 1));
});

test('the first false proof of a new name is the last', () => {
  const result = runEconomy({
    seed: 3,
    policy: policyAt(50),
    operators: [falsifies(1), falsifies(1), honest],
    comeBack: false,
    auditors: 4,
    blocks: 30,
  });
  assertSound(result);
  const [first, second, third] = result.operators;
  // Proofs go on for the blocks that an audit with escalation takes.
  for (const cheater of [first!, second!]) assert.ok(cheater.caughtAfter! <= 16 && cheater.profit <= 0);
  assert.equal(third!.caughtAfter, undefined);
});
