import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testKeys } from '../../test/consensus-group.ts';
import { presets } from '../model/config.ts';
import { toHex } from '../std/bytes.ts';
import {
  createNetworkDocument,
  type NetworkDraft,
  networkBytesMax,
  parseNetwork,
  requireNetwork,
} from './network.ts';
import { defaultOuter, defaultTraining } from './policy.ts';

const keys = testKeys(3);
const draft: NetworkDraft = {
  name: 'test',
  seed: new Uint8Array(32).fill(1),
  model: presets.tiny,
  dataset: '0'.repeat(64),
  training: defaultTraining(presets.tiny),
  outer: defaultOuter('int8', 'default'),
  members: keys.map(({ publicKey }, i) => ({ publicKey, weight: i + 1 })),
  bootstrap: ['/ip4/127.0.0.1/tcp/4001'],
};
const text = createNetworkDocument(draft, keys[0]!);
const parsed = parseNetwork(text);
assert.ok(parsed.ok);
const network = parsed.value;

/** The document with one place changed. */
function changed(path: readonly (string | number)[], value: unknown): string {
  const document = JSON.parse(text);
  let at = document;
  for (const key of path.slice(0, -1)) at = at[key];
  at[path.at(-1)!] = value;
  return JSON.stringify(document);
}
const resultOf = (document: string) => {
  const outcome = parseNetwork(document);
  return outcome.ok ? 'accepted' : `${outcome.code} ${outcome.detail}`.trim();
};

test('the manifest may say when the network was founded', () => {
  assert.equal(network.createdMs, undefined);
  const dated = parseNetwork(createNetworkDocument({ ...draft, createdMs: 1_800_000_000_000 }, keys[0]!));
  assert.ok(dated.ok);
  assert.equal(dated.value.createdMs, 1_800_000_000_000);
  assert.notDeepEqual(dated.value.networkId, network.networkId, 'it is signed with the rest');
  assert.match(resultOf(changed(['body', 'createdMs'], -1)), /^bad-network body\.createdMs/);
});

test('what a founder writes is what a node reads', () => {
  assert.deepEqual(network.training, draft.training);
  assert.deepEqual(network.outer, draft.outer);
  assert.deepEqual(network.model, draft.model);
  assert.deepEqual(network.bootstrap, draft.bootstrap);
  assert.deepEqual(
    network.members.map(({ nodeId, weight }) => [nodeId, weight]),
    keys.map(({ nodeId }, i) => [nodeId, i + 1]),
  );
  assert.equal(toHex(network.founder), toHex(keys[0]!.publicKey));
});

test('bootstrap addresses and the order of fields are not part of the network’s name; everything else is signed', () => {
  const elsewhere = parseNetwork(changed(['bootstrap'], []));
  assert.ok(elsewhere.ok);
  assert.deepEqual(elsewhere.value.networkId, network.networkId);
  const document = JSON.parse(text);
  const body = Object.fromEntries(Object.entries(document.body).reverse());
  const reordered = parseNetwork(JSON.stringify({ ...document, body }));
  assert.ok(reordered.ok);
  assert.deepEqual(reordered.value.networkId, network.networkId);
  const changes: [readonly (string | number)[], unknown][] = [
    [['body', 'name'], 'other'],
    [['body', 'seed'], 'f'.repeat(64)],
    [['body', 'dataset'], 'f'.repeat(64)],
    [['body', 'training', 'innerSteps'], 7],
    [['body', 'outer', 'learningRate'], 0.5],
    [['body', 'members', 1, 'weight'], 9],
    [['body', 'members'], [{ publicKey: toHex(keys[2]!.publicKey), weight: 1 }]],
    [['founder'], toHex(keys[1]!.publicKey)],
    [['signature'], '0'.repeat(128)],
  ];
  for (const [path, value] of changes)
    assert.match(resultOf(changed(path, value)), /^bad-signature /, path.join('.'));
  const resigned = parseNetwork(createNetworkDocument({ ...draft, name: 'other' }, keys[0]!));
  assert.ok(resigned.ok);
  assert.notDeepEqual(resigned.value.networkId, network.networkId);
});

test('stages: each has a member, by the manifest alone; the fields may be left out, and mean one stage', () => {
  const training = { ...draft.training, stages: 2, microbatches: 8, activations: 'int8' as const };
  const cut = parseNetwork(createNetworkDocument({ ...draft, training }, keys[0]!));
  assert.ok(cut.ok);
  assert.deepEqual(cut.value.training, training);
  assert.deepEqual(
    cut.value.members.map(({ stage }) => stage),
    [0, 1, 0],
  );
  const { stages, microbatches, activations, ...before } = draft.training;
  const old = parseNetwork(createNetworkDocument({ ...draft, training: before }, keys[0]!));
  assert.ok(old.ok);
  assert.deepEqual(old.value.training, draft.training);
  const removed = JSON.parse(text);
  delete removed.body.training.stages;
  assert.match(resultOf(JSON.stringify(removed)), /^bad-signature /, 'a default is not the field said');
});

test('stages that a model or its members cannot fill are refused, by founder and reader', () => {
  const tied = { ...presets.tiny, tiedEmbeddings: true };
  const cases: [Partial<NetworkDraft>, number, RegExp][] = [
    [{}, 5, /5 stages of a model with 4 layers/],
    [{}, 4, /4 stages need as many members, not 3/],
    [{ model: tied }, 2, /tied embeddings/],
  ];
  for (const [change, stages, expected] of cases) {
    const wrong = { ...draft, ...change, training: { ...draft.training, stages } };
    assert.throws(() => createNetworkDocument(wrong, keys[0]!), expected);
    const document = JSON.parse(text);
    document.body.training.stages = stages;
    if (change.model) document.body.model = change.model;
    assert.match(resultOf(JSON.stringify(document)), new RegExp(`^bad-network .*${expected.source}`));
  }
  assert.ok(parseNetwork(createNetworkDocument({ ...draft, model: tied }, keys[0]!)).ok);
});

test('a bad document names the field', () => {
  const cases: [readonly (string | number)[], unknown, RegExp][] = [
    [['body', 'format'], 2, /^bad-network body\.format/],
    [['body', 'name'], '', /^bad-network body\.name/],
    [['body', 'training', 'innerSteps'], 0, /^bad-network body\.training\.innerSteps/],
    [['body', 'training', 'stages'], 0, /^bad-network body\.training\.stages/],
    [['body', 'training', 'microbatches'], 4097, /^bad-network body\.training\.microbatches/],
    [['body', 'training', 'activations'], 'f16', /^bad-network body\.training\.activations/],
    [['body', 'training', 'peakLearningRate'], -1, /^bad-network body\.training\.peakLearningRate/],
    [['body', 'outer', 'aggregator'], 'best', /^bad-network body\.outer\.aggregator/],
    [['body', 'members'], [], /^bad-network body\.members/],
    [['body', 'members', 0, 'publicKey'], 'x', /^bad-network body\.members\.0\.publicKey/],
    [['body', 'members', 0, 'weight'], 0.5, /^bad-network body\.members\.0\.weight/],
    [['body', 'members', 1], { publicKey: toHex(keys[0]!.publicKey), weight: 1 }, /a member is named twice/],
    [['body', 'model', 'layers'], 0, /^bad-network model: layers/],
    [['body', 'training', 'sequence'], 1024, /sequence exceeds the context/],
    [['body', 'surprise'], 1, /^bad-network body/],
    [['signature'], 5, /^bad-network signature/],
  ];
  for (const [path, value, expected] of cases) assert.match(resultOf(changed(path, value)), expected);
  assert.match(resultOf('{"body":'), /^bad-network not JSON/);
  assert.match(resultOf('null'), /^bad-network document/);
  assert.match(resultOf(' '.repeat(networkBytesMax + 1)), /too large/);
  assert.throws(
    () => requireNetwork('{}', 'network.json'),
    /^CodedError: network\.json is not a valid network manifest: body/,
  );
});

test('property: nothing that is read makes it throw', () => {
  fc.assert(fc.property(fc.string({ maxLength: 200 }), (noise) => void parseNetwork(noise)));
  fc.assert(fc.property(fc.json(), (json) => void parseNetwork(json)));
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(JSON.parse(text).body)), fc.jsonValue(), (field, value) => {
      assert.notEqual(resultOf(changed(['body', field], value)), '');
    }),
  );
});
