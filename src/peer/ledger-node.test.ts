/** Ledgers of four nodes joined by consensus in virtual time; the rounds are made up, everything else is real. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { idealSignatures } from '../../sim/ideal-signatures.ts';
import { testKeys } from '../../test/consensus-group.ts';
import { endow, roundList, tinyNetwork } from '../../test/ledger-nodes.ts';
import { ledgerStoreBeside } from '../../test/ledger-stores.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { statementCode, statementDigest } from '../consensus/certificate.ts';
import { epochDomain } from '../consensus/epoch-end.ts';
import type { Dataset } from '../genesis/dataset.ts';
import type { KeyPair } from '../identity/keys.ts';
import { accountOf, chainOf, moneyInAll } from '../ledger/money.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import { equivocation } from '../ledger/transactions/equivocation.ts';
import { fraud } from '../ledger/transactions/fraud.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { memoryStore, type Store } from '../std/store.ts';
import type { NodeEvent } from './events.ts';
import { createLedgerNode, type LedgerNode } from './ledger-node.ts';

interface Member {
  readonly ledger: LedgerNode;
  readonly store: Store;
  readonly events: NodeEvent[];
  /** Lists that rounds were closed with, and how often rounds were reminded of a block without one. */
  readonly lists: string[];
  reminded: number;
  /** What this node's rounds propose; taken back once it is decided. */
  list: Uint8Array | undefined;
  convicted: string | undefined;
  stop(): Promise<void>;
}

function createGroup(policy: Partial<LedgerPolicy> = {}) {
  const net = createVirtualNetwork(0);
  const keys = testKeys(4);
  const ids = keys.map(({ nodeId }) => nodeId);
  const network = tinyNetwork(keys, policy);
  const signatures = idealSignatures(keys);
  const members: Member[] = [];
  const start = async (index: number, store: Store = memoryStore(), fresh = true): Promise<Member> => {
    const transport = net.hub.join(ids[index]!);
    const one: Omit<Member, 'ledger'> & { ledger?: LedgerNode } = {
      store,
      events: [],
      lists: [],
      reminded: 0,
      list: undefined,
      convicted: undefined,
      stop: async () => {
        await one.ledger?.close();
        await transport.close();
      },
    };
    one.ledger = await createLedgerNode({
      network,
      key: keys[index]!,
      dataset: {} as Dataset,
      transport,
      clock: net.clock,
      store,
      ledger: ledgerStoreBeside(store),
      rounds: {
        propose: async () => one.list,
        validate: async () => true,
        decided: ({ block }) => {
          one.lists.push(toHex(block.payload));
          one.list = undefined;
        },
        remind: () => void one.reminded++,
      },
      isFraud: (node) => node === one.convicted,
      events: (event) => void one.events.push(event),
      signatures,
    });
    if (fresh) await endow(one.ledger, ids[0]!, 1_000n);
    members[index] = one as Member;
    return one as Member;
  };
  const until = async (what: string, condition: () => boolean) => {
    await net.clock.run(net.clock.nowMs() + 60_000, condition);
    assert.ok(condition(), what);
  };
  const rootsAgree = () => {
    const roots = members.map(({ ledger }) => toHex(ledger.state().root()));
    assert.equal(new Set(roots).size, 1, `${roots}`);
    for (const { ledger } of members) {
      const { minted, burned } = chainOf(ledger.state());
      assert.equal(moneyInAll(ledger.state()), minted - burned);
    }
  };
  const startAll = async () => {
    for (let index = 0; index < 4; index++) await start(index);
    return members;
  };
  return { net, keys, ids, network, signatures, members, start, startAll, until, rootsAgree };
}

const atBlock = (members: readonly Member[], number: number) => () =>
  members.every(({ ledger }) => ledger.head().number >= number);

test('a transfer sent at one node is final on all, with one root, and no round is needed', async () => {
  const group = createGroup();
  const members = await group.startAll();
  const sent = members[0]!.ledger.send(transfer, { to: group.ids[3]!, amount: 7n });
  assert.ok(sent.ok);
  await group.until('one block', atBlock(members, 1));
  group.rootsAgree();
  for (const { ledger, reminded } of members) {
    assert.equal(accountOf(ledger.state(), group.ids[3]!).balance, 7n);
    assert.equal(ledger.mempool.size().transactions, 0);
    assert.equal(reminded, 1);
  }
  for (const member of members) await member.stop();
});

test('lists travel in blocks with what waits; started again, a node hears the newest ones', async () => {
  const group = createGroup({ epochBlocks: 4 });
  const members = await group.startAll();
  for (let round = 0; round < 10; round++) {
    for (const member of members) {
      member.list = roundList(group.network.networkId, round, group.keys);
      member.ledger.consensus.wake();
    }
    await group.until(`round ${round}`, () => members.every(({ lists }) => lists.length > round));
  }
  group.rootsAgree();
  const [first] = members;
  assert.ok(first!.ledger.head().epoch >= 2, 'over the ends of epochs');
  for (const { lists } of members) assert.deepEqual(lists, first!.lists);
  const { store, ledger } = first!;
  const head = ledger.head();
  await first!.stop();
  const again = await group.start(0, store, false);
  assert.deepEqual(again.ledger.head(), head);
  assert.deepEqual(again.lists, first!.lists.slice(-8));
  const { ledger: other } = members[1]!;
  assert.ok(other.send(transfer, { to: group.ids[0]!, amount: 1n }).ok === false, 'it has nothing');
  assert.ok(again.ledger.send(transfer, { to: group.ids[1]!, amount: 1n }).ok);
  await group.until('a block with it', atBlock(members, head.number + 1));
  group.rootsAgree();
  for (const member of members) await member.stop();
});

function equivocationBy(networkId: Uint8Array, key: KeyPair, signatures: ReturnType<typeof idealSignatures>) {
  const part = (name: string): Canonical => {
    const hash = sha256(utf8(name));
    const digest = statementDigest(epochDomain(networkId, 0), 'vote', 9, hash);
    return [statementCode('vote'), hash, signatures.sign(digest, key)];
  };
  return encodeCanonical([0, key.publicKey, 9, part('one'), part('two')]);
}

test('evidence of equivocation convicts everywhere; what proves nothing, or another, waits nowhere', async () => {
  const group = createGroup();
  const members = await group.startAll();
  const [judge] = members;
  const guilty = group.keys[2]!;
  const evidence = equivocationBy(group.network.networkId, guilty, group.signatures);
  const codeOf = (body: { accused: string; evidence: Uint8Array }) => {
    const sent = judge!.ledger.send(equivocation, body);
    return sent.ok ? 'ok' : sent.code;
  };
  assert.equal(codeOf({ accused: group.ids[1]!, evidence }), 'not-evidence');
  const bent = evidence.slice();
  bent[bent.length - 1]! ^= 1;
  assert.notEqual(codeOf({ accused: guilty.nodeId, evidence: bent }), 'ok');
  assert.equal(judge!.ledger.mempool.size().transactions, 0);
  assert.equal(codeOf({ accused: guilty.nodeId, evidence }), 'ok');
  await group.until('a block', atBlock(members, 1));
  group.rootsAgree();
  for (const { ledger } of members) {
    assert.equal(ledger.state().get('member', guilty.nodeId)?.convicted, true);
    const [key] = ledger.state().keys('slash');
    assert.equal(ledger.state().get('slash', key!)?.reason, 'equivocation');
  }
  for (const member of members) await member.stop();
});

test('fraud is taken in by those who have judged it themselves', async () => {
  const group = createGroup();
  const members = await group.startAll();
  const accusation = { publicKey: group.keys[3]!.publicKey, evidence: new Uint8Array(50) };
  const [first] = members;
  const before = first!.ledger.send(fraud, accusation);
  assert.equal(before.ok ? 'ok' : before.code, 'not-judged');
  first!.convicted = group.ids[3]!;
  const after = first!.ledger.send(fraud, accusation);
  assert.ok(after.ok, after.ok ? '' : after.code);
  // It is known for a fraud, but this is no evidence: whoever holds it drops it when its turn to propose comes.
  const paid = first!.ledger.send(transfer, { to: group.ids[3]!, amount: 1n });
  assert.ok(paid.ok);
  await group.until('a block', atBlock(members, 1));
  for (const { ledger, events } of members) {
    assert.equal(accountOf(ledger.state(), group.ids[3]!).balance, 1n);
    assert.deepEqual(ledger.state().keys('slash'), []);
    assert.ok(events.every((event) => event.type !== 'warning' || event.code !== 'bad-evidence'));
  }
  await group.until('it is dropped', () => first!.ledger.mempool.size().transactions === 0);
  const again = first!.ledger.send(fraud, accusation);
  assert.ok(again.ok, 'another transaction may hold it');
  for (const member of members) await member.stop();
});

test('a store that fails stops this node, says so, and leaves memory where the disk is', async () => {
  const group = createGroup();
  const store = memoryStore();
  const kept = ledgerStoreBeside(store);
  const { append } = kept;
  for (let index = 1; index < 4; index++) await group.start(index);
  const failing = await group.start(0, store);
  const pay = (member: Member) => member.ledger.send(transfer, { to: group.ids[1]!, amount: 1n });
  assert.ok(pay(failing).ok);
  await group.until('one block', atBlock(group.members, 1));
  kept.append = async () => {
    throw new Error('disk full');
  };
  const root = toHex(failing.ledger.state().root());
  assert.ok(pay(failing).ok);
  const others = group.members.slice(1);
  await group.until('the others go on', atBlock(others, 2));
  await group.until('it says so', () =>
    failing.events.some((event) => event.type === 'warning' && event.code === 'consensus-failed'),
  );
  assert.equal(failing.ledger.head().number, 1);
  assert.equal(toHex(failing.ledger.state().root()), root);
  assert.equal(failing.ledger.consensus.status().failed, true);
  await failing.stop();
  kept.append = append;
  const again = await group.start(0, store, false);
  await group.until('it catches up', () => again.ledger.head().number >= 2);
  group.rootsAgree();
  for (const member of group.members) await member.stop();
});
