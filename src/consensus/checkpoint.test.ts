/** A newcomer's way from something it trusts to the newest members: what is believed, and what is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { membersOf, testKeys, testNetwork } from '../../test/consensus-group.ts';
import { type KeyPair, signDigest } from '../identity/keys.ts';
import { sha256 } from '../std/hash.ts';
import { blockHash, genesisHash } from './block.ts';
import { makeCertificate, statementDigest } from './certificate.ts';
import {
  checkAge,
  checkpointOf,
  formatCheckpoint,
  openCheckpoint,
  parseCheckpoint,
  verifyEpochs,
} from './checkpoint.ts';
import { encodeEpochEnd, epochDomain } from './epoch-end.ts';
import type { EpochRun, EpochStart } from './epoch-types.ts';
import { defaultLimits } from './limits.ts';
import type { Block, DecidedBlock } from './types.ts';

const keys = testKeys(8);
const root = (epoch: number) => sha256(new Uint8Array([epoch]));

/** Epoch e is of four members from the e-th key on. */
const keysOf = (epoch: number) => [0, 1, 2, 3].map((i) => keys[(epoch + i) % keys.length]!);

interface Shape {
  readonly signers?: readonly KeyPair[];
  readonly count?: number;
  /** Empty blocks after the last, the last of which is certified. */
  readonly fillers?: number;
  readonly timeMs?: number;
  readonly next?: readonly KeyPair[];
}

function endOf(epoch: number, shape: Shape = {}): EpochRun {
  const {
    signers = keysOf(epoch),
    count = 3,
    fillers = 0,
    timeMs = 1_000 * epoch,
    next = keysOf(epoch + 1),
  } = shape;
  const domain = epochDomain(testNetwork, epoch);
  const end = { members: membersOf(next), stateRoot: root(epoch), timeMs };
  let block: Block = {
    height: 7,
    parentHeight: 6,
    parentHash: root(99),
    payload: encodeEpochEnd(epoch, end, defaultLimits),
  };
  const blocks: DecidedBlock[] = [{ block, hash: blockHash(domain, block) }];
  for (let i = 0; i < fillers; i++) {
    const parentHash = blocks.at(-1)!.hash;
    block = { height: block.height + 1, parentHeight: block.height, parentHash, payload: new Uint8Array() };
    blocks.push({ block, hash: blockHash(domain, block) });
  }
  const { hash } = blocks.at(-1)!;
  const digest = statementDigest(domain, 'finalize', block.height, hash);
  const votes = signers.slice(0, count).map((key, i) => [i, signDigest(digest, key.secretKey)] as const);
  const certificate = makeCertificate('finalize', block.height, hash, new Map(votes));
  return { epoch, blocks: [...blocks.slice(0, -1), { ...blocks.at(-1)!, certificate }] };
}

const genesis: EpochStart = { epoch: 0, members: membersOf(keysOf(0)), root: genesisHash };
const options = { networkId: testNetwork };
const verify = (ends: readonly EpochRun[], from: EpochStart = genesis) => verifyEpochs(from, ends, options);
const codeOf = (ends: readonly EpochRun[], from: EpochStart = genesis) => {
  const verified = verify(ends, from);
  return verified.ok ? 'ok' : verified.code;
};

test('members certify those who follow them, and the state', () => {
  const ends = [endOf(0), endOf(1, { fillers: 2 }), endOf(2)];
  const verified = verify(ends);
  assert.ok(verified.ok && 'stateRoot' in verified.value);
  const { epoch, members, stateRoot, timeMs, root: hash } = verified.value;
  assert.equal(epoch, 3);
  assert.deepEqual(members, membersOf(keysOf(3)));
  assert.deepEqual(stateRoot, root(2));
  assert.equal(timeMs, 2_000);
  assert.deepEqual(hash, ends[2]!.blocks[0]!.hash);
  // In parts, and not at all.
  const half = verify(ends.slice(0, 2));
  assert.ok(half.ok);
  assert.deepEqual(verify(ends.slice(2), half.value), verified);
  assert.deepEqual(verify([]), { ok: true, value: genesis });
});

test('nothing else is believed', () => {
  assert.equal(codeOf([endOf(1)]), 'epoch-gap');
  assert.equal(codeOf([endOf(0), endOf(2)]), 'epoch-gap');
  assert.equal(codeOf([endOf(0, { count: 2 })]), 'bad-certificate');
  assert.equal(codeOf([endOf(0, { signers: keysOf(1) })]), 'bad-certificate');
  assert.equal(codeOf([endOf(0, { timeMs: 5_000 }), endOf(1)]), 'time-runs-back');
  assert.equal(codeOf([{ epoch: 0, blocks: [] }]), 'not-an-end');
  const [good] = endOf(0).blocks as [DecidedBlock];
  const { certificate: _, ...bare } = good;
  assert.equal(codeOf([{ epoch: 0, blocks: [bare] }]), 'no-certificate');
  const filled = endOf(0, { fillers: 2 }).blocks;
  assert.equal(codeOf([{ epoch: 0, blocks: filled.slice(1) }]), 'not-an-end');
  assert.equal(codeOf([{ epoch: 0, blocks: [filled[0]!, filled[2]!] }]), 'unlinked');
  // A certificate of the same epoch that is of another block, and the end of another epoch.
  const other = endOf(0, { next: keysOf(4) }).blocks[0]!.certificate!;
  assert.equal(codeOf([{ epoch: 0, blocks: [{ ...good, certificate: other }] }]), 'bad-certificate');
  assert.equal(codeOf([{ ...endOf(1), epoch: 0 }]), 'not-an-end');
});

test('a name that a peer gives to a block counts for nothing', () => {
  const { epoch, blocks } = endOf(0);
  const forged = blocks.map((decided) => ({ ...decided, hash: root(50) }));
  const verified = verify([{ epoch, blocks: forged }]);
  assert.ok(verified.ok);
  assert.deepEqual(verified.value.root, blocks[0]!.hash);
});

test('a checkpoint is a line of text, and opens to the members behind it', () => {
  const end = endOf(4);
  const start = { epoch: 5, members: membersOf(keysOf(5)), root: end.blocks[0]!.hash };
  const text = formatCheckpoint(checkpointOf(start));
  assert.match(text, /^5:[0-9a-f]{64}:[0-9a-f]{64}$/);
  const parsed = parseCheckpoint(text);
  assert.ok(parsed.ok);
  // The hash vouches for the block, so the certificate may be anything.
  const opened = openCheckpoint(parsed.value, { epoch: 4, blocks: [{ ...end.blocks[0]! }] }, options);
  assert.ok(opened.ok);
  assert.deepEqual(opened.value, { ...start, stateRoot: root(4), timeMs: 4_000 });
  assert.equal(codeOf([endOf(5)], opened.value), 'ok');

  for (const run of [endOf(3), endOf(4, { next: keysOf(6) }), { epoch: 4, blocks: [] }]) {
    const refused = openCheckpoint(parsed.value, run, options);
    assert.ok(!refused.ok && refused.code === 'wrong-checkpoint');
  }
  const others = { ...parsed.value, members: root(1) };
  const refused = openCheckpoint(others, end, options);
  assert.ok(!refused.ok && refused.code === 'wrong-checkpoint');
  for (const bad of ['', '5', text.slice(0, -1), `-${text}`, `0${text}`, text.toUpperCase()]) {
    assert.equal(parseCheckpoint(bad).ok, false, bad);
  }
});

test('a checkpoint is good until those it names could have taken back their stake', () => {
  const clock = { nowMs: 100_000, unbondingMs: 60_000, skewMs: 5_000 };
  const code = (timeMs: number) => {
    const checked = checkAge(timeMs, clock);
    return checked.ok ? 'ok' : checked.code;
  };
  assert.deepEqual([40_000, 40_001, 100_000, 105_000, 105_001].map(code), [
    'checkpoint-too-old',
    'ok',
    'ok',
    'ok',
    'checkpoint-in-future',
  ]);
});
