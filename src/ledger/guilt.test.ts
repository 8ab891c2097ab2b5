/** Whatever provers, auditors and reporters do: money is conserved, nobody is paid twice, and nobody after guilt. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { auditTransactions, hashOf, keysByNode, type Opinion, proverIn } from '../../test/proof-world.ts';
import { installSha256 } from '../std/hash.ts';
import { accountOf, chainOf } from './money.ts';
import { fraud } from './transactions/fraud.ts';
import { retire } from './transactions/retire.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

type Action =
  | { readonly kind: 'prove'; readonly who: number; readonly steps: number }
  | { readonly kind: 'audit' }
  | { readonly kind: 'fraud'; readonly who: number }
  | { readonly kind: 'retire'; readonly who: number };

const who = fc.nat(3);
const proving = fc.record({ kind: fc.constant('prove' as const), who, steps: fc.constantFrom(1, 10, 20) });
const actions: fc.Arbitrary<Action> = fc.oneof(
  { weight: 6, arbitrary: proving },
  { weight: 14, arbitrary: fc.record({ kind: fc.constant('audit' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('fraud' as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('retire' as const), who }) },
);

/** Most of the time what is true of this proof; else a lie, or silence. An auditor keeps to it. */
function opinionOf(seed: number, auditor: string, key: string): Opinion {
  const [common] = hashOf('truth', seed, key);
  const [own] = hashOf('opinion', seed, auditor, key);
  const truth = common! < 150 ? 'true' : common! < 210 ? 'false' : 'withheld';
  const word = own! < 225 ? truth : (['false', 'other', 'withheld', 'silent'] as const)[own! % 4]!;
  if (word === 'silent') return undefined;
  if (word === 'withheld') return { verdict: 'withheld' };
  if (word === 'other') return { verdict: 'valid', hash: hashOf('other', key) };
  return { verdict: word === 'true' ? 'valid' : 'false', hash: hashOf('recomputed', key) };
}

/** Everything that could ever be the node's. */
function owned({ state }: LedgerWorld, node: string): bigint {
  const { balance, stake, unbonding } = accountOf(state, node);
  const prover = state.get('prover', node);
  const vesting = prover?.vesting ?? [];
  return (
    balance +
    stake +
    (prover?.bond ?? 0n) +
    [...unbonding, ...vesting.map(([, amount]) => [amount] as const)].reduce((sum, [each]) => sum + each, 0n)
  );
}

test('property: no sequence makes money, pays twice, or pays the guilty', () => {
  const policy = { bondProofs: 2, vestingFactor: 1, auditBlocks: 2 };
  const reasons = new Set<string>();
  fc.assert(
    fc.property(fc.array(actions, { minLength: 30, maxLength: 60 }), fc.nat(), (sequence, seed) => {
      const world = ledgerWorld({ policy, founders: 6 });
      const keys = keysByNode(world.founders);
      // Two of the provers vote as well.
      const people = [world.founders[0]!, world.founders[1]!, namedKey('one'), namedKey('two')];
      const nodes = [...new Set([...people, ...world.founders])].map(({ nodeId }) => nodeId);
      const paidAtGuilt = new Map<string, bigint>();
      for (const action of sequence) {
        const done = perform(world, keys, people, action, seed);
        assert.ok(done, action.kind);
        world.checkSupply();
        for (const node of nodes) {
          const before = paidAtGuilt.get(node);
          if (before !== undefined) assert.ok(owned(world, node) <= before, 'paid after guilt');
          if (world.state.get('prover', node)?.convicted) paidAtGuilt.set(node, owned(world, node));
        }
      }
      const { minted, burned } = chainOf(world.state);
      assert.ok(minted >= burned);
      for (const key of world.state.keys('slash')) reasons.add(world.state.get('slash', key)!.reason);
    }),
    { numRuns: 20, seed: 7 },
  );
  assert.deepEqual([...reasons].sort(), [
    'driver-fraud',
    'false-proof',
    'false-verdict',
    'withheld-evidence',
  ]);
});

/** Whether the block was taken; what a rule refuses is not put into one. */
function perform(
  world: LedgerWorld,
  keys: ReturnType<typeof keysByNode>,
  people: readonly (typeof world.founders)[number][],
  action: Action,
  seed: number,
): boolean {
  if (action.kind === 'audit') {
    const finding = (auditor: string, key: string) => opinionOf(seed, auditor, key);
    return world.take(world.block(auditTransactions(world, keys, finding))).ok;
  }
  const key = people[action.who]!;
  if (action.kind === 'prove') {
    const prover = proverIn(world, key, action.steps);
    const taken = world.take(world.block([prover.transaction(prover.claim())]));
    return taken.ok || taken.code === 'prover-convicted';
  }
  if (action.kind === 'retire') {
    const taken = world.take(world.block([world.sign(retire, null, key)]));
    return taken.ok || ['no-bond', 'open-duties'].includes(taken.code);
  }
  const body = { publicKey: key.publicKey, evidence: hashOf('claim') };
  const taken = world.take(world.block([world.sign(fraud, body, namedKey('reporter'))]));
  return taken.ok || taken.code === 'already-convicted';
}
