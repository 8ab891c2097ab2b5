import assert from 'node:assert/strict';
import { test } from 'node:test';
import { idealSignatures } from '../../sim/ideal-signatures.ts';
import { createGroup, type Group, testNetwork } from '../../test/consensus-group.ts';
import { verifyDigest } from '../identity/keys.ts';
import { equalBytes, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { memoryStore } from '../std/store.ts';
import { blockHash, genesisHash } from './block.ts';
import { noHash, statementDigest, verifyCertificate } from './certificate.ts';
import { verifyEvidence } from './evidence.ts';
import { defaultLimits, defaultTiming } from './limits.ts';
import { memberSet } from './members.ts';
import { encodeMessage, type Vote } from './messages.ts';
import { isMisbehaviour } from './receive.ts';
import type { Block, VoteKind } from './types.ts';

const view = 3 * defaultTiming.deltaMs;

async function opened(count: number, except: readonly number[] = [], observers = 0): Promise<Group> {
  const group = createGroup(count, observers);
  for (let i = 0; i < count + observers; i++) if (!except.includes(i)) await group.open(i);
  await group.run(1);
  return group;
}

async function decideRounds(group: Group, rounds: number, ms = 100): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    group.wakeAll();
    await group.run(ms);
  }
}

const deliveredBy = (group: Group) => [...group.nodes.values()].map((node) => node.delivered);

/** A statement signed with a member's own key, as a hostile member would make it. */
function forge(group: Group, member: number, kind: VoteKind, height: number, hash = noHash): Vote {
  const digest = statementDigest(testNetwork, kind, height, hash);
  const signature = idealSignatures(group.keys).sign(digest, group.keys[member]!);
  return { kind, height, blockHash: hash, member, signature };
}

const genesis = { height: 0, hash: genesisHash };

function proposalOf(group: Group, leader: number, height: number, payload: string, parent = genesis) {
  const block: Block = {
    height,
    parentHeight: parent.height,
    parentHash: parent.hash,
    payload: utf8(payload),
  };
  const hash = blockHash(testNetwork, block);
  const digest = statementDigest(testNetwork, 'proposal', height, hash);
  return { block, hash, signature: idealSignatures(group.keys).sign(digest, group.keys[leader]!) };
}

for (const count of [1, 2, 3, 4, 5]) {
  test(`${count} members decide the same payloads in the same order`, async () => {
    const group = await opened(count);
    await decideRounds(group, 4);
    const expected = [1, 2, 3, 4].map((height) => `height ${height} by ${height % count}`);
    for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, expected);
  });
}

test('with secp256k1 signatures, which a stranger cannot make', async () => {
  const group = createGroup(4, 0, 'secp256k1');
  for (let i = 0; i < 4; i++) await group.open(i);
  await group.run(1);
  await decideRounds(group, 2);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, ['height 1 by 1', 'height 2 by 2']);
  const [block] = group.nodes.get(0)!.replica.decidedSince(1);
  const members = memberSet(group.members, 10);
  const scheme = { sign: () => new Uint8Array(64), verify: verifyDigest };
  assert.ok(verifyCertificate(block!.certificate!, testNetwork, members, scheme).ok);
  const stranger: Vote = { ...forge(group, 1, 'dummy', 3) };
  const outcome = group.nodes.get(0)!.replica.receive('s', encodeMessage({ type: 'vote', vote: stranger }));
  assert.ok(!outcome.ok && outcome.code === 'bad-signature');
});

test('a decision costs each member three small messages when nothing is lost', async () => {
  const group = await opened(4);
  await decideRounds(group, 3);
  const kinds = group.said.map(({ message }) => message.type);
  assert.equal(kinds.filter((kind) => kind === 'proposal').length, 3);
  assert.equal(kinds.filter((kind) => kind === 'vote').length, 2 * 4 * 3);
  assert.equal(kinds.length, 3 + 2 * 4 * 3);
});

test('nothing is said while there is nothing to decide', async () => {
  const group = await opened(4);
  await decideRounds(group, 1);
  const before = group.said.length;
  await group.run(3_600_000);
  assert.equal(group.said.length, before);
  assert.deepEqual(
    new Set([...group.nodes.values()].map(({ replica }) => replica.status().height)),
    new Set([2]),
  );
});

test('two or three members need everyone, four go on without any one', async () => {
  for (const [count, decides] of [
    [2, false],
    [3, false],
    [4, true],
  ] as const) {
    for (let dead = 0; dead < count; dead++) {
      const group = await opened(count, [dead]);
      await decideRounds(group, 1, 10 * view);
      for (const delivered of deliveredBy(group)) assert.equal(delivered.length, decides ? 1 : 0);
    }
  }
});

test('a member that joins late in the height completes it, and all agree', async () => {
  const group = await opened(3, [1]);
  group.wakeAll();
  await group.run(10 * view);
  await group.open(1);
  await group.run(1);
  group.wakeAll();
  await group.run(20 * view);
  const [first, ...others] = deliveredBy(group);
  assert.equal(first!.length, 1);
  for (const other of others) assert.deepEqual(other, first);
});

test('the wake of one member burns no heights and wakes nobody', async () => {
  const group = await opened(4);
  group.nodes.get(3)!.replica.wake();
  await group.run(20 * view);
  for (const index of [0, 1, 2]) {
    const { active, height } = group.nodes.get(index)!.replica.status();
    assert.deepEqual({ active, height }, { active: false, height: 1 });
  }
  group.wakeAll();
  await group.run(view);
  assert.equal(new Set(deliveredBy(group).map((delivered) => delivered.join())).size, 1);
  assert.equal(deliveredBy(group)[0]!.length, 1);
});

test('views without a decision grow, and return to the base after one', async () => {
  const group = await opened(4, [1, 2]);
  group.reaches = () => true;
  await group.open(2, { application: { validate: async () => false } });
  await group.run(1);
  const heights: number[] = [];
  const validateNever = { validate: async () => false, propose: async () => undefined };
  for (const index of [0, 3]) {
    await group.kill(index);
    await group.open(index, { application: validateNever });
  }
  await group.run(1);
  group.wakeAll();
  for (let i = 0; i < 40; i++) {
    await group.run(view);
    heights.push(group.nodes.get(0)!.replica.status().height);
  }
  assert.ok(heights[0]! >= 1 && heights[39]! > 4, 'dummy heights pass');
  assert.ok(heights[39]! < 16, 'but ever more slowly');
});

test('validation may take longer than a view: the vote follows', async () => {
  const group = await opened(4, [0, 1, 2, 3]);
  for (let i = 0; i < 4; i++) {
    const slow = () => new Promise<boolean>((resolve) => group.clock.setTimer(view * 2, () => resolve(true)));
    // Only the first leader has anything to propose, and nobody follows it within the view.
    await group.open(i, {
      application: { validate: slow, propose: async () => (i === 1 ? utf8('late') : undefined) },
    });
  }
  await group.run(1);
  group.wakeAll();
  await group.run(400 * view);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, ['late']);
});

test('a refused payload is judged again after a wake', async () => {
  const group = await opened(4, [0, 1, 2, 3]);
  let known = false;
  for (let i = 0; i < 4; i++) await group.open(i, { application: { validate: async () => known } });
  await group.run(1);
  group.wakeAll();
  await group.run(100);
  assert.deepEqual(deliveredBy(group), [[], [], [], []]);
  known = true;
  group.wakeAll();
  await group.run(100);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, ['height 1 by 1']);
});

test('a payload that more than a third refuse is never decided', async () => {
  const group = await opened(4, [0, 1, 2, 3]);
  for (let i = 0; i < 4; i++) {
    const validate = async (payload: Uint8Array) => i < 2 || !new TextDecoder().decode(payload).endsWith('1');
    await group.open(i, { application: { validate } });
  }
  await group.run(1);
  group.wakeAll();
  await group.run(20 * view);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, ['height 2 by 2']);
});

test('an observer follows and never speaks', async () => {
  const group = await opened(4, [], 1);
  await decideRounds(group, 3);
  assert.deepEqual(group.nodes.get(4)!.delivered, group.nodes.get(0)!.delivered);
  assert.equal(group.nodes.get(4)!.delivered.length, 3);
  assert.equal(group.nodes.get(4)!.replica.status().member, false);
  assert.equal(group.said.filter(({ member }) => member === 4).length, 0);
});

test('nobody who saw a block notarized both finalizes and votes for the dummy', async () => {
  const group = await opened(4);
  let turn = 0;
  group.reaches = () => turn++ % 4 !== 0;
  await decideRounds(group, 6, 10 * view);
  const finalized = new Set<string>();
  const dummies = new Set<string>();
  for (const { message } of group.said) {
    if (message.type !== 'vote') continue;
    const name = `${message.vote.member} at ${message.vote.height}`;
    if (message.vote.kind === 'finalize') finalized.add(name);
    if (message.vote.kind === 'dummy') dummies.add(name);
  }
  assert.ok(finalized.size > 0);
  for (const name of finalized) assert.ok(!dummies.has(name), name);
  const longest = deliveredBy(group).reduce((a, b) => (b.length > a.length ? b : a));
  assert.ok(longest.length >= 5, `${longest}`);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, longest);
});

test('a block that skips a height without its dummy gets no vote; one that extends the chain does', async () => {
  const group = await opened(4, [2]);
  const votesFor = (hash: Uint8Array) =>
    group.said.filter(({ message, attempt }) => {
      if (attempt > 0 || message.type !== 'vote') return false;
      return message.vote.kind === 'vote' && equalBytes(message.vote.blockHash, hash);
    });
  group.reaches = (_from, _to, message) => message.type !== 'vote' || message.vote.kind !== 'finalize';
  group.wakeAll();
  await group.run(100);
  for (const { replica } of group.nodes.values()) {
    assert.deepEqual([replica.status().height, replica.status().decidedHeight], [2, 0]);
  }
  const first = group.said.find(({ message }) => message.type === 'proposal')!.message;
  assert.ok(first.type === 'proposal');
  const skipping = proposalOf(group, 2, 2, 'skips height 1');
  const extending = proposalOf(group, 2, 2, 'extends height 1', { height: 1, hash: first.proposal.hash });
  for (const [proposal, votes] of [
    [skipping, 0],
    [extending, 3],
  ] as const) {
    for (const { replica } of group.nodes.values()) {
      replica.receive('2', encodeMessage({ type: 'proposal', proposal }));
    }
    await group.run(100);
    assert.equal(votesFor(proposal.hash).length, votes);
  }
});

test('a member cut off catches up by gossip alone, each payload once', async () => {
  const group = await opened(4);
  await decideRounds(group, 1);
  group.reaches = (from, to) => from !== 0 && to !== 0;
  await decideRounds(group, 4, 10 * view);
  assert.equal(group.nodes.get(0)!.delivered.length, 1);
  group.reaches = () => true;
  await decideRounds(group, 2, 40 * view);
  const expected = group.nodes.get(1)!.delivered;
  assert.ok(expected.length >= 6);
  assert.deepEqual(group.nodes.get(0)!.delivered, expected);
  assert.equal(new Set(expected).size, expected.length);
});

test('a node takes decided blocks from a peer, and no forged ones', async () => {
  const group = await opened(4, [], 1);
  group.reaches = (_from, to) => to !== 4;
  await decideRounds(group, 5);
  const blocks = group.nodes.get(0)!.replica.decidedSince(0);
  const { replica, delivered } = group.nodes.get(4)!;
  assert.equal(blocks.length, 5);
  const codeOf = (...args: Parameters<typeof replica.adopt>) => {
    const outcome = replica.adopt(...args);
    return outcome.ok ? 'ok' : outcome.code;
  };
  const last = blocks[4]!;
  const lie = { ...last.block, payload: utf8('mine') };
  assert.equal(codeOf([...blocks.slice(0, 4), { ...last, block: lie }]), 'bad-certificate');
  assert.equal(codeOf(blocks.slice(0, 4).map(({ block, hash }) => ({ block, hash }))), 'no-certificate');
  assert.equal(codeOf([...blocks.slice(0, 2), ...blocks.slice(3)]), 'unlinked');
  assert.equal(codeOf(blocks.slice(2)), 'unlinked');
  assert.equal(codeOf([{ ...blocks[0]!, certificate: last.certificate! }]), 'bad-certificate');
  const kind = { ...last.certificate!, kind: 'vote' as const };
  assert.equal(codeOf([...blocks.slice(0, 4), { ...last, certificate: kind }]), 'bad-certificate');
  assert.equal(codeOf([]), 'nothing-new');
  assert.equal(codeOf(blocks.slice(0, 2)), 'ok');
  assert.equal(codeOf(blocks.slice(0, 2)), 'nothing-new');
  assert.equal(codeOf(blocks.slice(3), { jump: true }), 'ok');
  await group.run(10);
  assert.deepEqual(
    delivered,
    [1, 2, 4, 5].map((height) => `height ${height} by ${height % 4}`),
  );
});

test('what is kept of the past is bounded, and still ends in a certificate', async () => {
  const group = createGroup(1);
  const node = await group.open(0, { limits: { decidedBlocksKept: 3 } });
  await group.run(1);
  await decideRounds(group, 10, 10);
  const kept = node.replica.decidedSince(0);
  assert.deepEqual(
    kept.map(({ block }) => block.height),
    [8, 9, 10],
  );
  assert.ok(kept.at(-1)!.certificate);
  assert.equal(node.delivered.length, 10);
});

test('messages outside the window, repeated, foreign or forged are refused with their code', async () => {
  const group = await opened(4);
  await decideRounds(group, 2);
  const { replica } = group.nodes.get(0)!;
  const codeOf = (bytes: Uint8Array) => {
    const outcome = replica.receive('somebody', bytes);
    return outcome.ok ? 'ok' : outcome.code;
  };
  const vote = (one: Vote) => codeOf(encodeMessage({ type: 'vote', vote: one }));
  const top = 3 + defaultLimits.heightsAheadMax;
  assert.equal(vote(forge(group, 1, 'dummy', top)), 'ok');
  assert.equal(vote(forge(group, 1, 'dummy', top)), 'duplicate');
  assert.equal(vote(forge(group, 1, 'dummy', top + 1)), 'too-far-ahead');
  assert.equal(vote(forge(group, 1, 'dummy', 2)), 'already-decided');
  assert.equal(vote(forge(group, 0, 'dummy', 3)), 'own-message');
  assert.equal(vote({ ...forge(group, 1, 'dummy', 3), member: 4 }), 'unknown-member');
  assert.equal(vote({ ...forge(group, 1, 'dummy', 3), member: 2 }), 'bad-signature');
  assert.equal(vote({ ...forge(group, 1, 'dummy', 3), height: 4 }), 'bad-signature');
  const proposal = (leader: number, height: number, payload = 'x') =>
    codeOf(encodeMessage({ type: 'proposal', proposal: proposalOf(group, leader, height, payload) }));
  assert.equal(proposal(2, 3), 'bad-signature');
  assert.equal(proposal(2, 2), 'already-decided');
  assert.equal(proposal((top + 1) % 4, top + 1), 'too-far-ahead');
  assert.equal(proposal(1, 5, 'a'), 'ok');
  assert.equal(proposal(1, 5, 'a'), 'duplicate');
  assert.equal(proposal(1, 5, 'b'), 'ok');
  assert.equal(proposal(1, 5, 'c'), 'buffer-full');
  assert.equal(codeOf(utf8('garbage')), 'malformed');
  for (const code of ['duplicate', 'too-far-ahead', 'already-decided', 'buffer-full', 'unlinked']) {
    assert.ok(!isMisbehaviour(code), code);
  }
  for (const code of ['bad-signature', 'malformed', 'unknown-member']) assert.ok(isMisbehaviour(code), code);
});

test('equivocation leaves evidence that anybody can check', async () => {
  const group = await opened(4);
  const { replica } = group.nodes.get(0)!;
  const a = sha256(utf8('a'));
  const b = sha256(utf8('b'));
  const receive = (vote: Vote) => replica.receive('somebody', encodeMessage({ type: 'vote', vote }));
  receive(forge(group, 1, 'vote', 1, a));
  const refused = receive(forge(group, 1, 'vote', 1, b));
  assert.ok(!refused.ok && refused.code === 'equivocation');
  receive(forge(group, 2, 'finalize', 1, a));
  receive(forge(group, 2, 'dummy', 1));
  for (const payload of ['a', 'b']) {
    replica.receive('s', encodeMessage({ type: 'proposal', proposal: proposalOf(group, 1, 1, payload) }));
  }
  const evidence = replica.evidence();
  assert.deepEqual(
    evidence.map(({ kind, member }) => `${kind} of ${member}`),
    ['vote of 1', 'finalize-and-dummy of 2', 'proposal of 1'],
  );
  const members = memberSet(group.members, 10);
  const signatures = idealSignatures(group.keys);
  const codeOf = (one: (typeof evidence)[number]) => {
    const outcome = verifyEvidence(one, testNetwork, members, signatures, defaultLimits);
    return outcome.ok ? 'ok' : outcome.code;
  };
  for (const one of evidence) {
    assert.equal(codeOf(one), 'ok');
    assert.equal(codeOf({ ...one, second: one.first }), 'not-evidence');
    assert.equal(codeOf({ ...one, member: 3 }), 'not-evidence');
  }
  const innocent = encodeMessage({ type: 'vote', vote: { ...forge(group, 1, 'vote', 1, b), member: 3 } });
  assert.equal(codeOf({ ...evidence[0]!, second: innocent }), 'bad-signature');
});

test('evidence and future heights are bounded', async () => {
  const group = createGroup(4);
  const node = await group.open(0, { limits: { evidenceMax: 3 } });
  await group.run(1);
  for (let height = 1; height <= 10; height++) {
    for (const text of ['a', 'b']) {
      const vote = forge(group, 1, 'vote', height, sha256(utf8(text)));
      node.replica.receive('s', encodeMessage({ type: 'vote', vote }));
    }
  }
  assert.deepEqual(
    node.replica.evidence().map(({ height }) => height),
    [8, 9, 10],
  );
});

test('a node that hears only of later heights says that it is behind', async () => {
  const group = await opened(4);
  const { replica, behind } = group.nodes.get(0)!;
  for (const member of [1, 2]) {
    replica.receive('s', encodeMessage({ type: 'vote', vote: forge(group, member, 'dummy', 500) }));
  }
  await group.run(view);
  assert.ok(behind.length > 0);
  assert.equal(behind[0], 499);
});

test('an application that fails to take a decision stops the replica, and is told so', async () => {
  const group = createGroup(1);
  const node = await group.open(0, {
    application: {
      decided() {
        throw new Error('no room');
      },
    },
  });
  await group.run(1);
  node.replica.wake();
  await group.run(10);
  assert.equal(node.failures.length, 1);
  assert.equal(node.replica.status().failed, true);
});

test('a store that fails stops the replica before anything unwritten is said', async () => {
  const group = createGroup(1);
  const store = { ...memoryStore(), put: async () => Promise.reject(new Error('disk full')) };
  const node = await group.open(0, { store });
  await group.run(1);
  node.replica.wake();
  await group.run(10);
  assert.equal(group.said.length, 0);
  assert.ok(node.failures.length > 0);
  const outcome = node.replica.receive('s', utf8('anything'));
  assert.ok(!outcome.ok && outcome.code === 'not-running');
});

test('the application is asked nothing while it has not taken what is decided', async () => {
  const group = createGroup(4);
  let taking = 0;
  let asked = 0;
  let early = 0;
  for (let i = 0; i < 4; i++) {
    await group.open(i, {
      application: {
        validate: async () => {
          asked += 1;
          if (taking & (1 << i)) early += 1;
          return true;
        },
        async decided() {
          taking |= 1 << i;
          await new Promise<void>((resolve) => group.clock.setTimer(3 * view, resolve));
          taking &= ~(1 << i);
        },
      },
    });
  }
  await group.run(1);
  group.wakeAll();
  await group.run(100);
  assert.equal(taking, 15);
  group.wakeAll();
  await group.run(20 * view);
  assert.equal(early, 0);
  assert.ok(asked >= 6, 'the next height is validated after all');
  for (const { replica } of group.nodes.values()) assert.ok(replica.status().decidedHeight >= 2);
});

test('an application that throws when asked is one that has nothing and approves nothing', async () => {
  const group = await opened(4, [0, 1, 2, 3]);
  for (let i = 0; i < 4; i++) {
    const broken = async () => Promise.reject(new Error('bug'));
    await group.open(i, i === 1 ? { application: { propose: broken, validate: broken } } : {});
  }
  await group.run(1);
  group.wakeAll();
  await group.run(10 * view);
  for (const delivered of deliveredBy(group)) assert.deepEqual(delivered, ['height 2 by 2']);
});
