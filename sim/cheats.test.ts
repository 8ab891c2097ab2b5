/**
 * What each cheat does to the honest step in whose place it stands, and what an audit, the ledger's checks or the members
 * find in it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DutyOptions } from '../src/audit/duty.ts';
import { statementDigest } from '../src/consensus/certificate.ts';
import { epochDomain } from '../src/consensus/epoch-end.ts';
import { decodeEnvelope, encodeEnvelope } from '../src/consensus/epoch-wire.ts';
import { checkEvidence, encodeEvidence } from '../src/consensus/equivocation.ts';
import { defaultLimits } from '../src/consensus/limits.ts';
import { memberSet } from '../src/consensus/members.ts';
import { decodeMessage, encodeMessage } from '../src/consensus/messages.ts';
import { secp256k1Signatures } from '../src/consensus/signatures.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import { applyOne } from '../src/ledger/apply.ts';
import type { ProofBody } from '../src/ledger/proof.ts';
import { decodeTransaction, encodeTransaction } from '../src/ledger/transaction.ts';
import { verdictCommitment } from '../src/ledger/verdict.ts';
import type { Transport } from '../src/net/transport.ts';
import type { StageTarget } from '../src/optim/pipeline-stage.ts';
import { consensusTopic } from '../src/peer/chain-sync.ts';
import type { Peer, PeerOptions } from '../src/peer/peer.ts';
import {
  auditDataset,
  auditOne,
  auditRules,
  auditSettings,
  createProver,
  interpretedExecutor,
} from '../test/audit-world.ts';
import { ledgerWorld, namedKey } from '../test/ledger-world.ts';
import { nextMs, proverIn } from '../test/proof-world.ts';
import { auditStage, claimIn, stageRules, stageWorld } from '../test/stage-world.ts';
import { tinyReplica } from '../test/tiny-replica.ts';
import { accusing, approving } from './cheats-auditor.ts';
import { inflatedProof, inflations, postdatedProof } from './cheats-proof.ts';
import { garbageOnward, otherTargets, shortcutReplica, withholdingReplica } from './cheats-replica.ts';
import { equivocatingTransport, silentTransport } from './cheats-validator.ts';

const executor = await interpretedExecutor();
const nodeId = 'cheater';

/** Trains three rounds of four steps in two intervals; cheats from the second on. */
async function findings(stepsMade: number): Promise<string[][]> {
  const { plan } = auditSettings;
  const cheatsIn = (round: number) => round >= 1;
  const honest = await tinyReplica(auditSettings);
  const replica = shortcutReplica(honest, { planOf: () => plan, intervalSteps: 2, stepsMade, cheatsIn });
  const prover = createProver({ nodeId, replica, rules: auditRules, dataset: auditDataset });
  const all: string[][] = [];
  for (let round = 0; round < 3; round++) {
    const claim = await prover.round();
    assert.equal(claim.endStep, auditRules.innerSteps);
    const codes: string[] = [];
    for (const interval of [0, 1]) codes.push((await auditOne(prover, claim, interval, executor)).code);
    all.push(codes);
  }
  return all;
}

test('idle: honest at first, then states and chain are in order and nothing was done', async () => {
  assert.deepEqual(await findings(0), [
    ['valid', 'valid'],
    ['no-work', 'no-work'],
    ['no-work', 'no-work'],
  ]);
});

test('fewer steps: what was made stands, what was not does not, nor what follows from it', async () => {
  assert.deepEqual(await findings(2), [
    ['valid', 'valid'],
    ['valid', 'no-work'],
    // The moments are those of fewer steps than the optimizer counts.
    ['update-mismatch', 'no-work'],
  ]);
});

test('withheld evidence is no verdict on the work', async () => {
  const replica = withholdingReplica(await tinyReplica(auditSettings), () => true);
  const prover = createProver({ nodeId, replica, rules: auditRules, dataset: auditDataset });
  const found = await auditOne(prover, await prover.round(), 0, executor);
  assert.equal(found.verdict, 'withheld');
});

test('made-up verdicts can be revealed, and no two auditors make up the same hash', () => {
  const options = { networkId: new Uint8Array(32), duty: '07'.repeat(32), salt: new Uint8Array(32).fill(5) };
  const say = (how: typeof accusing, auditor: string) => how({ ...options, auditor } as DutyOptions);
  for (const [how, verdict] of [
    [accusing, 'false'],
    [approving, 'valid'],
  ] as const) {
    const auditor = 'ab'.repeat(32);
    const { reveal, commitment } = say(how, auditor);
    assert.equal(reveal.verdict, verdict);
    assert.deepEqual(commitment, verdictCommitment(options.networkId, auditor, reveal));
    assert.notDeepEqual(say(how, 'cd'.repeat(32)).reveal.hash, reveal.hash);
  }
});

test('inflated and postdated proofs go out, and the ledger refuses each with its code', async () => {
  const world = ledgerWorld();
  const prover = proverIn(world, namedKey('prover'));
  const sent: Uint8Array[] = [];
  const peer = {
    options: {
      key: prover.key,
      transport: { publish: async (_topic: string, bytes: Uint8Array) => sent.push(bytes) },
    },
    ledger: { sign: (_rule: unknown, body: ProofBody) => encodeTransaction(prover.transaction(body)) },
  } as unknown as Peer;
  const codeOf = async (cheat: typeof inflatedProof, body: ProofBody) => {
    sent.length = 0;
    assert.equal(await cheat(peer, () => true)(body), undefined);
    const transaction = decodeTransaction(sent[0]!);
    assert.ok(transaction.ok);
    const done = applyOne(world.state, transaction.value, world.context());
    return done.ok ? 'accepted' : done.code;
  };
  const codes: string[] = [];
  for (let round = 1; round <= inflations.length; round++)
    codes.push(await codeOf(inflatedProof, prover.claim({ round })));
  assert.deepEqual(codes.sort(), [
    'batches-implausible',
    'layers-implausible',
    'roles-implausible',
    'tokens-implausible',
  ]);
  assert.equal(
    await codeOf(postdatedProof, prover.claim({ timestampMs: nextMs(world) })),
    'proof-from-future',
  );
  const honest = prover.claim();
  assert.equal(await inflatedProof(peer, () => false)(honest), honest);
});

const networkId = new Uint8Array(32).fill(9);
const key = namedKey('validator');

/** What comes out when the honest replica votes for a block. */
async function spoken(disguise: typeof silentTransport, cheats: boolean): Promise<Uint8Array[]> {
  const said: Uint8Array[] = [];
  const transport = { publish: async (_topic: string, bytes: Uint8Array) => void said.push(bytes) };
  const honest = { transport, key, network: { networkId } } as unknown as PeerOptions;
  const made: Transport = disguise({ honest, cheatsIn: () => cheats, cheatsNow: () => cheats });
  const blockHash = new Uint8Array(32).fill(1);
  const digest = statementDigest(epochDomain(networkId, 0), 'vote', 4, blockHash);
  const signature = secp256k1Signatures.sign(digest, key);
  const vote = { kind: 'vote', height: 4, blockHash, member: 0, signature } as const;
  await made.publish(consensusTopic, encodeEnvelope(0, encodeMessage({ type: 'vote', vote })));
  await made.publish('another', new Uint8Array([1]));
  return said;
}

test('the silent validator says all but its votes', async () => {
  assert.equal((await spoken(silentTransport, false)).length, 2);
  assert.deepEqual(await spoken(silentTransport, true), [new Uint8Array([1])]);
});

test('the equivocating validator signs what convicts it', async () => {
  assert.equal((await spoken(equivocatingTransport, false)).length, 2);
  const said = await spoken(equivocatingTransport, true);
  assert.equal(said.length, 3);
  const [first, second] = said.slice(0, 2).map((bytes) => {
    const envelope = decodeEnvelope(bytes, defaultLimits);
    assert.ok(envelope.ok);
    const { message } = envelope.value;
    assert.ok(decodeMessage(message, epochDomain(networkId, 0), defaultLimits).ok);
    return message;
  });
  const members = memberSet([{ nodeId: key.nodeId, publicKey: key.publicKey, weight: 1 }], 4);
  const evidence = { kind: 'vote', height: 4, member: 0, first: first!, second: second! } as const;
  const { bytes } = encodeEvidence(evidence, { networkId, epoch: 0, members, limits: defaultLimits });
  const checked = checkEvidence(bytes, networkId);
  assert.ok(checked.ok, checked.ok ? '' : checked.code);
  assert.equal(checked.value.nodeId, key.nodeId);
});

/** What audits of both intervals find of each stage, when one of them cheats from the first step on. */
async function findingsOf(
  stage: number,
  cheat: (honest: StageReplica) => StageReplica,
): Promise<(readonly string[])[]> {
  const world = await stageWorld({}, {}, (honest, of) => (of === stage ? cheat(honest) : honest));
  for (let step = 0; step < stageRules.innerSteps; step++) await world.takeStep(step);
  return Promise.all(
    world.provers.map(async (prover) => {
      const claim = await claimIn(prover);
      const codes: string[] = [];
      for (const interval of [0, 1]) codes.push((await auditStage(world, prover, claim, interval)).code);
      return codes;
    }),
  );
}

const fine = ['valid', 'valid'];

for (const stage of [0, 1, 2]) {
  const only = (codes: readonly string[]) => [0, 1, 2].map((of) => (of === stage ? codes : fine));

  test(`stage ${stage + 1}: garbage onward is found, and nothing of its neighbours`, async () => {
    const found = await findingsOf(stage, (honest) => garbageOnward(honest, () => true));
    assert.deepEqual(found, only(['wrong-rows', 'wrong-rows']));
  });

  test(`stage ${stage + 1}: steps that were left out are found`, async () => {
    const shortcut = (stepsMade: number) => (honest: StageReplica) =>
      shortcutReplica(honest, {
        planOf: () => auditSettings.plan,
        intervalSteps: 2,
        stepsMade,
        cheatsIn: () => true,
      });
    assert.deepEqual(await findingsOf(stage, shortcut(0)), only(['no-work', 'no-work']));
    assert.deepEqual(await findingsOf(stage, shortcut(2)), only(['valid', 'no-work']));
  });

  test(`stage ${stage + 1}: other targets than those that reached it are found, but for a Driver, which has none`, async () => {
    const turned = (target: StageTarget) =>
      target instanceof Int32Array ? target.map((label) => (label + 7) % 256) : target.map((x) => -x);
    const found = await findingsOf(stage, (honest) => otherTargets(honest, () => true, turned));
    assert.deepEqual(found, only(stage === 0 ? fine : ['update-mismatch', 'update-mismatch']));
  });
}
