/** Seeds come from committed chains: what is not due, or of no chain, is refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ledgerWorld } from '../../test/ledger-world.ts';
import type { Outcome } from '../std/outcome.ts';
import { beaconLink, ownBeacon, seedsKept } from './beacon.ts';
import { chainOf } from './money.ts';

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const other = new Uint8Array(32).fill(7);

test('first a commitment, then preimages', () => {
  const world = ledgerWorld({ founders: 1 });
  const first = world.block([]);
  assert.equal(codeOf(world.take({ ...first, beaconCommitment: null })), 'no-beacon');
  assert.equal(codeOf(world.take({ ...first, beaconPreimage: other })), 'wrong-beacon');
  world.advance();
  const next = world.block([]);
  assert.deepEqual(beaconLink(next.beaconPreimage!), first.beaconCommitment);
  assert.equal(codeOf(world.take({ ...next, beaconPreimage: null })), 'no-beacon');
  assert.equal(codeOf(world.take({ ...next, beaconPreimage: other })), 'bad-preimage');
  assert.equal(codeOf(world.take({ ...next, beaconCommitment: other })), 'wrong-beacon');
  world.advance();
});

test('the seed takes a preimage in only when its commitment is old', () => {
  const seedsAfter = (name: string) => {
    const world = ledgerWorld({ founders: 1 });
    const seeds: string[] = [];
    const { nodeId } = world.founders[0]!;
    const beacon = ownBeacon(new Uint8Array(32).fill(name.length), world.constants.networkId);
    for (let number = 1; number <= 12; number++) {
      const part = beacon.next(world.state.get('member', nodeId)!, number)!;
      const taken = world.take({ ...world.block([]), ...part });
      assert.equal(codeOf(taken), 'accepted');
      seeds.push(Buffer.from(chainOf(world.state).seeds.at(-1)!).toString('hex'));
    }
    assert.equal(chainOf(world.state).seeds.length, seedsKept);
    assert.equal(new Set(seeds).size, 12);
    return seeds;
  };
  const [one, two] = [seedsAfter('x'), seedsAfter('yy')];
  assert.deepEqual(one.slice(0, 8), two.slice(0, 8));
  assert.notEqual(one[8], two[8]);
});

test('a chain ends by sight, and the next begins there; a restart changes nothing', () => {
  const networkId = new Uint8Array(32).fill(3);
  const secret = new Uint8Array(32).fill(1);
  let member: { beacon: Uint8Array | null; beaconAt: number } = { beacon: null, beaconAt: 0 };
  let beacon = ownBeacon(secret, networkId);
  let chains = 0;
  for (let number = 1; number <= 1_100; number++) {
    if (number % 400 === 0) beacon = ownBeacon(secret, networkId);
    const { beaconPreimage, beaconCommitment } = beacon.next(member, number)!;
    // Asked twice it says the same: a proposal that was not decided is made again.
    assert.deepEqual(beacon.next(member, number), { beaconPreimage, beaconCommitment });
    if (member.beacon) assert.deepEqual(beaconLink(beaconPreimage!), member.beacon);
    const ends = beaconPreimage?.subarray(0, 16).every((byte) => byte === 0) ?? true;
    assert.equal(beaconCommitment !== null, ends);
    if (beaconCommitment) chains += 1;
    member = {
      beacon: beaconCommitment ?? beaconPreimage,
      beaconAt: beaconCommitment ? number : member.beaconAt,
    };
  }
  assert.equal(chains, 2);
  assert.equal(beacon.next({ beacon: other, beaconAt: 1 }, 1_101), undefined);
});
