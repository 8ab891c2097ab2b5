/** Joining the ledger from far away, in virtual time: late, after a long absence, from liars, and across a crash. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  assertSameLedger,
  createLedgerGroup,
  epochBlocks,
  type LedgerGroup,
  type LedgerGroupNode,
} from '../../test/ledger-group.ts';
import { ledgerStoreBeside } from '../../test/ledger-stores.ts';
import { settle } from '../../test/virtual-network.ts';
import { checkpointOf } from '../consensus/checkpoint.ts';
import type { EpochStart } from '../consensus/epoch-types.ts';
import { decodeRun, encodeRun } from '../consensus/epoch-wire.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { decodeSnapshotInfo, encodeSnapshotInfo } from '../ledger/snapshot-chunks.ts';
import {
  blocksProtocol,
  epochEndsProtocol,
  type Protocol,
  snapshotChunkProtocol,
  snapshotInfoProtocol,
} from '../net/protocol.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { accept, CodedError } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';
import { decodeEnds, encodeCounts, encodeEnds } from './ledger-sync-wire.ts';

async function grown(nodes = 5, members = 4, blocks = 22, policy = {}) {
  const group = createLedgerGroup(nodes, members, policy);
  const running: LedgerGroupNode[] = [];
  for (let index = 0; index < members; index++) running.push(await group.start(index));
  await group.decide(running, blocks);
  return { group, running };
}

const stopAll = async (nodes: readonly LedgerGroupNode[]) => {
  for (const node of nodes) await node.crash();
};
const epochOf = ({ ledger }: LedgerGroupNode) => ledger.consensus.status().epoch;
const isAt = (node: LedgerGroupNode, other: LedgerGroupNode) => () =>
  node.ledger.head().number === other.ledger.head().number;
/** Somebody speaks, so that who is behind notices. */
async function decideWith(group: LedgerGroup, running: readonly LedgerGroupNode[], late: LedgerGroupNode) {
  await group.decide(running, 1);
  late.ledger.consensus.wake();
  await group.until('it has caught up', isAt(late, running[0]!));
}

test('a newcomer with only the manifest joins many epochs later, and follows from there', async () => {
  const { group, running } = await grown();
  assert.ok(epochOf(running[0]!) >= 5);
  const late = await group.start(4);
  await decideWith(group, running, late);
  assertSameLedger([...running, late]);
  assert.deepEqual(late.warnings(), ['blocks-skipped']);
  assert.equal(await late.ledger.store.block(1), undefined);
  await group.decide([...running, late], 2 * epochBlocks);
  assertSameLedger([...running, late]);
  assert.deepEqual(late.penalties, []);
  await stopAll([...running, late]);
});

test('a member that was away for many epochs comes back, votes, and others can join from it alone', async () => {
  const group = createLedgerGroup(5, 4);
  const running: LedgerGroupNode[] = [];
  for (let index = 0; index < 3; index++) running.push(await group.start(index));
  const away = await group.start(3);
  await group.decide([...running, away], 6);
  await away.crash();
  await group.decide(running, 6 * epochBlocks);
  const back = await group.start(3, { store: away.store });
  assert.equal(back.ledger.head().number, 6);
  await decideWith(group, running, back);
  assertSameLedger([...running, back]);
  assert.deepEqual(back.warnings(), ['blocks-skipped']);
  await running.pop()!.crash();
  await group.decide([...running, back], epochBlocks);
  // It has kept what proved its state, from where it was on: a newcomer of that time needs nobody else.
  const ends = await back.ledger.consensus.endsSince(1);
  assert.equal(ends.length, epochOf(back) - 1);
  await stopAll([...running, back]);
});

test('started again after it joined, a node stands where it stood', async () => {
  const { group, running } = await grown();
  const late = await group.start(4);
  await decideWith(group, running, late);
  await late.crash();
  const again = await group.start(4, { store: late.store });
  assert.equal(epochOf(again), epochOf(running[0]!));
  assertSameLedger([...running, again]);
  await decideWith(group, running, again);
  assertSameLedger([...running, again]);
  assert.deepEqual(again.warnings(), []);
  await stopAll([...running, again]);
});

test('a snapshot begins every epoch, the newest two are kept, and old blocks are forgotten', async () => {
  const { running } = await grown(4, 4, 22);
  for (const { ledger } of running) {
    const snapshots = await ledger.store.snapshots();
    assert.deepEqual(
      snapshots.map(({ head }) => head.number),
      [20, 16],
    );
    assert.equal(await ledger.store.block(4), undefined);
    assert.ok(await ledger.store.block(5));
  }
  await stopAll(running);
});

/** With one liar among the members that are asked, and no member below. */
async function joinedWith(lies: (liar: LedgerGroupNode, truth: LedgerGroupNode) => void) {
  const { group, running } = await grown(5, 4, 17);
  // Peers are asked in the order of their names.
  const asked = running.toSorted((a, b) => (a.transport.self < b.transport.self ? -1 : 1));
  const liar = asked[0]!;
  lies(liar, asked[1]!);
  const late = await group.start(4);
  await decideWith(group, running, late);
  assertSameLedger([...running, late]);
  const index = running.indexOf(liar);
  await stopAll([...running, late]);
  return late.penalties.map((penalty) => penalty.replace(`${index} `, 'liar '));
}

const changed = (bytes: Uint8Array, at: number) => bytes.with(at, bytes[at]! ^ 1);

test('forged ends of epochs are refused, held against who sent them, and got from others', async () => {
  const penalties = await joinedWith(({ lies, ledger }) => {
    const { networkId } = ledger.constants;
    lies.set(epochEndsProtocol.id, (answer) => {
      const ends = decodeEnds(answer, networkId);
      assert.ok(ends.ok && ends.value.length > 2);
      const [first, second, ...rest] = ends.value;
      const { certificate, ...block } = second!.blocks[0]!;
      assert.ok(certificate);
      const signatures = certificate.signatures.map((signature) => changed(signature, 0));
      const forged = { ...second!, blocks: [{ ...block, certificate: { ...certificate, signatures } }] };
      return accept(encodeEnds([first!, forged, ...rest]));
    });
  });
  assert.deepEqual(penalties, ['liar bad-certificate']);
});

test('ends that cannot be read, or leave one out, are refused with a code', async () => {
  const unreadable = await joinedWith(({ lies }) =>
    lies.set(epochEndsProtocol.id, () => accept(new Uint8Array([0x9f, 1, 2]))),
  );
  assert.deepEqual(unreadable, ['liar malformed']);
  const gap = await joinedWith(({ lies, ledger }) =>
    lies.set(epochEndsProtocol.id, (answer) => {
      const ends = decodeEnds(answer, ledger.constants.networkId);
      assert.ok(ends.ok);
      return accept(encodeEnds(ends.value.slice(1)));
    }),
  );
  assert.deepEqual(gap, ['liar epoch-gap']);
});

test('a snapshot of another state is refused, and a forged chunk of the right one', async () => {
  const otherRoot = await joinedWith(({ lies }) =>
    lies.set(snapshotInfoProtocol.id, (answer) => {
      const info = decodeSnapshotInfo(answer);
      assert.ok(info.ok);
      const head = { ...info.value.head, stateRoot: sha256(answer) };
      return accept(encodeSnapshotInfo({ ...info.value, head }));
    }),
  );
  assert.deepEqual(otherRoot, ['liar wrong-state-root']);
  const otherChunk = await joinedWith(({ lies }) =>
    lies.set(snapshotChunkProtocol.id, (answer) => accept(changed(answer, answer.length - 1))),
  );
  assert.deepEqual(otherChunk, ['liar wrong-chunk']);
});

test('a forged state that says of itself that it has the certified root is found out at the end', async () => {
  const rows = encodeCanonical([]);
  const penalties = await joinedWith(({ lies }) => {
    lies.set(snapshotInfoProtocol.id, (answer) => {
      const info = decodeSnapshotInfo(answer);
      assert.ok(info.ok);
      return accept(encodeSnapshotInfo({ ...info.value, chunks: [sha256(rows)] }));
    });
    lies.set(snapshotChunkProtocol.id, () => accept(rows));
  });
  assert.deepEqual(penalties, ['liar wrong-state-root']);
});

test('chunks that do not end, or hold no rows, end with a code', async () => {
  const garbage = encodeCanonical(['no row']);
  const wrongRows = await joinedWith(({ lies }) => {
    lies.set(snapshotInfoProtocol.id, (answer) => {
      const info = decodeSnapshotInfo(answer);
      assert.ok(info.ok);
      return accept(encodeSnapshotInfo({ ...info.value, chunks: [sha256(garbage)] }));
    });
    lies.set(snapshotChunkProtocol.id, () => accept(garbage));
  });
  assert.deepEqual(wrongRows, ['liar malformed-snapshot']);
  const tooMuch = await joinedWith(({ lies }) =>
    lies.set(snapshotInfoProtocol.id, (answer) => {
      const info = decodeSnapshotInfo(answer);
      assert.ok(info.ok);
      return accept(encodeSnapshotInfo({ ...info.value, bytes: 1 }));
    }),
  );
  assert.deepEqual(tooMuch, ['liar malformed-snapshot']);
});

test('who speaks of later epochs that nobody can prove moves nobody', async () => {
  const { group, running } = await grown(5, 4, 2);
  const late = await group.start(4);
  for (const { lies } of running)
    lies.set(blocksProtocol.id, (answer) => {
      const run = decodeRun(answer, group.network.networkId, defaultLimits);
      assert.ok(run.ok);
      return accept(encodeRun({ ...run.value, epoch: 9 }));
    });
  late.ledger.consensus.wake();
  await group.net.run(30_000);
  assert.equal(late.ledger.head().number, 0);
  for (const { lies } of running) lies.clear();
  await decideWith(group, running, late);
  assertSameLedger([...running, late]);
  assert.deepEqual(late.warnings(), ['ends-unavailable']);
  await stopAll([...running, late]);
});

test('killed between noting where it goes and being there, a node joins again', async () => {
  const { group, running } = await grown();
  for (const fails of ['before', 'after'] as const) {
    const store = memoryStore();
    const ledger = ledgerStoreBeside(store);
    const { install } = ledger;
    ledger.install = async (head, rows) => {
      if (head.number > 0 && fails === 'before') throw new CodedError('disk-full', 'no room');
      await install(head, rows);
      if (head.number > 0) throw new CodedError('ledger-failed', 'gone');
    };
    const late = await group.start(4, { store });
    await group.decide(running, 1);
    late.ledger.consensus.wake();
    await group.until('it fails', () => late.warnings().includes('ledger-not-moved'));
    assert.equal(late.ledger.head().number, 0);
    await late.crash();
    ledger.install = install;
    const again = await group.start(4, { store });
    assert.equal(again.ledger.head().number > 0, fails === 'after');
    await decideWith(group, running, again);
    assertSameLedger([...running, again]);
    await again.crash();
  }
  await stopAll(running);
});

test('with a checkpoint a newcomer trusts it alone; one of another history leads nowhere', async () => {
  const { group, running } = await grown(5, 4, 18);
  const ends = await running[0]!.ledger.consensus.endsSince(2);
  assert.ok(ends.length >= 2);
  const start: EpochStart = running[0]!.ledger.consensus.start();
  const right = checkpointOf(start);
  const late = await group.start(4, { checkpoint: right });
  assert.equal(epochOf(late), start.epoch);
  assert.equal(late.ledger.head().number, 16);
  await decideWith(group, running, late);
  assertSameLedger([...running, late]);
  await late.crash();
  const wrong = group.start(4, { checkpoint: { ...right, root: sha256(right.root) } });
  await assert.rejects(wrong, { code: 'wrong-checkpoint' });
  await stopAll(running);
});

test('what one starts from must be younger than the time after which stake is free', async () => {
  const unbondingMs = 3_600_000;
  const { group, running } = await grown(6, 4, 16, { unbondingMs });
  const old = checkpointOf(running[0]!.ledger.consensus.start());
  await group.net.run(unbondingMs);
  await group.decide(running, 3 * epochBlocks + 2);
  const late = await group.start(4);
  await group.decide(running, 1);
  late.ledger.consensus.wake();
  await group.until('it is told', () => late.warnings().includes('checkpoint-too-old'));
  assert.equal(late.ledger.head().number, 0);
  await assert.rejects(group.start(5, { checkpoint: old }), { code: 'checkpoint-too-old' });
  await late.crash();
  const young = checkpointOf(running[0]!.ledger.consensus.start());
  const again = await group.start(4, { store: late.store, checkpoint: young });
  await decideWith(group, running, again);
  assertSameLedger([...running, again]);
  await stopAll([...running, again]);
});

test('the first epoch is as old as the manifest says, whatever its members say of it', async () => {
  const unbondingMs = 3_600_000;
  const group = createLedgerGroup(5, 4, { unbondingMs }, 0);
  await group.net.run(unbondingMs);
  const running: LedgerGroupNode[] = [];
  for (let index = 0; index < 4; index++) running.push(await group.start(index));
  await group.decide(running, 5 * epochBlocks + 2);
  const late = await group.start(4);
  await group.decide(running, 1);
  late.ledger.consensus.wake();
  await group.until('it is told', () => late.warnings().includes('checkpoint-too-old'));
  assert.equal(late.ledger.head().number, 0);
  await stopAll([...running, late]);
});

test('a member that left at the very end of its epoch is as old as that epoch', async () => {
  const unbondingMs = 3_600_000;
  const { group, running } = await grown(4, 4, 5, { unbondingMs });
  const leaving = running.pop()!;
  await group.decide([...running, leaving], 2);
  await group.net.run(0.8 * unbondingMs);
  await group.decide([...running, leaving], 1);
  assert.equal(leaving.ledger.head().number, 2 * epochBlocks);
  assert.equal(epochOf(leaving), 1);
  await leaving.crash();
  await group.net.run(0.4 * unbondingMs);
  await group.decide(running, 4 * epochBlocks);
  const back = await group.start(3, { store: leaving.store });
  await group.decide(running, 1);
  await group.until('it is told', () => back.warnings().includes('checkpoint-too-old'));
  assert.equal(back.ledger.head().number, 2 * epochBlocks);
  await stopAll([...running, back]);
});

test('requests that make no sense are answered with a code', async () => {
  const { group, running } = await grown(3, 2, 5);
  const asker = group.net.hub.join(sha256Hex(new Uint8Array(1)));
  const ask = async (protocol: Protocol, body: Uint8Array) => {
    const answer = await settle(group.net, asker.request(running[0]!.transport.self, protocol, body));
    return answer.ok ? 'accepted' : answer.code;
  };
  assert.equal(await ask(epochEndsProtocol, encodeCounts(0)), 'accepted');
  assert.equal(await ask(epochEndsProtocol, encodeCounts(2 ** 50)), 'accepted');
  assert.equal(await ask(snapshotInfoProtocol, encodeCounts(1)), 'accepted');
  assert.equal(await ask(snapshotInfoProtocol, encodeCounts(7)), 'unknown-snapshot');
  assert.equal(await ask(snapshotChunkProtocol, encodeCounts(4, 0)), 'accepted');
  assert.equal(await ask(snapshotChunkProtocol, encodeCounts(4, 1)), 'unknown-chunk');
  assert.equal(await ask(snapshotChunkProtocol, encodeCounts(5, 0)), 'unknown-chunk');
  for (const protocol of [epochEndsProtocol, snapshotInfoProtocol, snapshotChunkProtocol]) {
    for (const wrong of [0, 'x', [], [-1], [0.5], [null, 1], [1, 2, 3]])
      assert.equal(await ask(protocol, encodeCanonical(wrong)), 'schema');
    assert.equal(await ask(protocol, new Uint8Array([0xff])), 'malformed');
    assert.equal(await ask(protocol, new Uint8Array(64)), 'too-large');
  }
  await asker.close();
  await stopAll(running);
});
