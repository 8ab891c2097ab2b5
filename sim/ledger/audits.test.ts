import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { installSha256 } from '../../src/std/hash.ts';
import { runEconomy } from './economy.ts';
import {
  assertSound,
  caughtShare,
  memberProfits,
  policyAt,
  proverProfits,
  selfPayingShare,
} from './profits.ts';
import { assertNoProfit } from './scenario.ts';
import { falsifies, honest } from './strategies.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

test('who falsifies 20% of its proofs at 20% audited is caught within 50 with probability 0.85 or more', () => {
  const caught = caughtShare(1, 400);
  assert.ok(caught >= 0.85, String(caught));
});

test('no cheater earns more than 5% of honest profit, thrown-away names included; more honest work earns more', () => {
  const provers = proverProfits({ seed: 1, rate: 200, each: 2, hours: 12, minutes: 3 });
  const others = memberProfits({ seed: 1, rate: 200, each: 1, hours: 6 });
  assertNoProfit(200, provers, [...others, selfPayingShare()]);
  assert.ok(provers.length >= 20 && others.length >= 7);
});

test('where auditors have little time nobody is paid for what they had no time for', () => {
  const scarce = policyAt(500, { auditsPerBlockMax: 1, auditsOpenMax: 1, bondProofs: 0 });
  const operators = [...Array.from({ length: 11 }, () => honest), falsifies(1)];
  const validators = ['honest', 'honest', 'honest', 'honest'] as const;
  const result = runEconomy({ seed: 1, policy: scarce, operators, comeBack: false, validators, blocks: 400 });
  assertSound(result);
  const cheat = result.operators.at(-1)!;
  assert.ok(cheat.caughtAfter! > 4, 'audits are few');
  assert.equal(cheat.profit, 0, 'and it was paid nothing before the first');
  assert.ok(result.operators.slice(0, -1).every(({ profit }) => profit > 0));
});

test('the first false proof of a new name is the last', () => {
  const result = runEconomy({
    seed: 3,
    policy: policyAt(50),
    operators: [falsifies(1), falsifies(1), honest],
    comeBack: false,
    validators: ['honest', 'honest', 'honest', 'honest'],
    blocks: 30,
  });
  assertSound(result);
  const [first, second, third] = result.operators;
  // Proofs go on for the blocks that an audit with escalation takes.
  for (const cheater of [first!, second!]) assert.ok(cheater.caughtAfter! <= 16 && cheater.profit <= 0);
  assert.equal(third!.caughtAfter, undefined);
});
