/** A prover on the native engine, audited by wasm processes: honest work stands, and all auditors find the same hash. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  auditDataset,
  auditOne,
  auditRules,
  auditSettings,
  createProver,
} from '../../../test/audit-world.ts';
import { createLocalReplica } from '../../diloco/local-replica.ts';
import { startAuditProcess } from './audit-host.ts';
import { createNativeEngine } from './onnx-native.ts';

const config = { ...auditSettings.config, width: 64, headWidth: 32, ffn: 96, context: 16 };
const settings = { ...auditSettings, config, batch: 4, sequence: 16 };
const rules = { ...auditRules, batch: 4, sequence: 16 };

const normal = { priority: 'normal' } as const;
const auditors = await Promise.all([1, 2].map(() => startAuditProcess([settings], normal)));
after(() => Promise.all(auditors.map((auditor) => auditor.stop())));
const [first, second] = auditors.map(({ service }) => service);

async function nativeProver(nodeId: string, threads: number) {
  const replica = await createLocalReplica({ ...settings, engine: createNativeEngine({ threads }) });
  after(() => replica.close());
  return createProver({ nodeId, replica, rules, dataset: auditDataset });
}

for (const threads of [1, 2]) {
  test(`work on ${threads} native threads stands, and two auditors reveal one hash`, async () => {
    const prover = await nativeProver('honest', threads);
    await prover.round();
    const claim = await prover.round();
    for (const interval of [0, 1]) {
      const found = await auditOne(prover, claim, interval, first!, rules);
      assert.equal(found.verdict, 'valid', `${found.code} ${found.detail}`);
      assert.ok(found.disagreement!.update > 0, 'another engine, other bits');
      assert.deepEqual(await auditOne(prover, claim, interval, second!, rules), found);
    }
  });
}

test('a native cheater is found out by both, with one hash', async () => {
  const prover = await nativeProver('cheater', 1);
  const claim = await prover.round({ dataOf: 'somebody else' });
  const found = await auditOne(prover, claim, 0, first!, rules);
  assert.equal(found.code, 'update-mismatch');
  assert.deepEqual(await auditOne(prover, claim, 0, second!, rules), found);
  assert.ok((await first!.cpuMs()) > 0);
});

test('settings that make no model are refused in one line', async () => {
  await assert.rejects(startAuditProcess([{ ...settings, stages: 3 }]), { code: 'bad-stages' });
});
