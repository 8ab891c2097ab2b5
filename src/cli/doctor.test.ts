import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeMachine, type Machine, parseNvidiaSmi } from '../platform/nodejs/machine.ts';
import { judge, presetFits } from './doctor.ts';

const laptop: Machine = {
  nodeVersion: '24.1.0',
  platform: 'linux',
  arch: 'x64',
  cpuModel: 'Some CPU',
  cores: 8,
  memoryBytes: 16e9,
  memoryFreeBytes: 8e9,
  diskFreeBytes: 100e9,
  gpus: [],
  providers: [
    { name: 'cpu', installed: true },
    { name: 'webgpu', installed: true },
    { name: 'cuda', installed: false },
  ],
  onnxruntimeError: null,
};

const statuses = (machine: Machine, isPortFree = true) =>
  Object.fromEntries(judge(machine, isPortFree).map(({ name, status }) => [name, status]));
const finding = (machine: Machine, name: string) => judge(machine, true).find((each) => each.name === name)!;

test('a machine with everything is fine, and each lack is found and advised on', () => {
  assert.ok(Object.values(statuses(laptop)).every((status) => status === 'ok'));
  assert.equal(statuses({ ...laptop, nodeVersion: '22.9.0' }).node, 'fail');
  assert.equal(statuses({ ...laptop, cores: 1 }).processor, 'warn');
  assert.equal(statuses({ ...laptop, memoryFreeBytes: 1e8 }).memory, 'fail');
  assert.equal(statuses({ ...laptop, diskFreeBytes: 1e8 }).disk, 'warn');
  assert.equal(statuses({ ...laptop, diskFreeBytes: null }).disk, 'ok');
  const broken = { ...laptop, providers: null, onnxruntimeError: 'no such library' };
  assert.match(finding(broken, 'tensor engine').detail, /no such library/);
  assert.equal(statuses(broken)['tensor engine'], 'fail');
  assert.equal(statuses(laptop, false).port, 'warn');
  const everythingWrong = {
    ...broken,
    nodeVersion: '20.0.0',
    cores: 1,
    memoryFreeBytes: 1,
    diskFreeBytes: 1,
  };
  for (const { status, advice } of judge(everythingWrong, false))
    assert.equal(status === 'ok', advice === undefined);
});

test('an NVIDIA GPU without its provider is told how to get it; any other GPU is offered webgpu', () => {
  const nvidia = { ...laptop, gpus: parseNvidiaSmi('NVIDIA GeForce RTX 4090, 24564\n') };
  assert.deepEqual(nvidia.gpus, [
    { vendor: 'nvidia', name: 'NVIDIA GeForce RTX 4090', memoryBytes: 24564 * 2 ** 20 },
  ]);
  assert.match(finding(nvidia, 'gpu').advice ?? '', /--onnxruntime-node-install=cuda12/);
  const withCuda = { ...nvidia, providers: [{ name: 'cuda', installed: true }] };
  assert.equal(finding(withCuda, 'gpu').status, 'ok');
  const apple: Machine = {
    ...laptop,
    platform: 'darwin',
    arch: 'arm64',
    gpus: [{ vendor: 'apple', name: 'Apple GPU', memoryBytes: null }],
  };
  assert.match(finding(apple, 'gpu').detail, /--provider webgpu/);
});

test('nvidia-smi that says nothing useful gives no GPU', () => {
  assert.deepEqual(parseNvidiaSmi(''), []);
  assert.deepEqual(parseNvidiaSmi('No devices were found\n'), []);
  assert.deepEqual(parseNvidiaSmi('NVIDIA GB10, [N/A]'), [
    { vendor: 'nvidia', name: 'NVIDIA GB10', memoryBytes: null },
  ]);
});

test('larger presets need more memory, and what does not fit is not offered', () => {
  const fits = presetFits({ ...laptop, memoryFreeBytes: 2e9 });
  assert.deepEqual(
    fits.map(({ preset, fits: each }) => [preset, each]),
    [
      ['tiny', true],
      ['small', true],
      ['medium', true],
      ['reference', false],
    ],
  );
});

test('this machine is described without failing', async () => {
  const machine = await describeMachine('.');
  assert.ok(machine.cores >= 1 && machine.memoryBytes > 0);
  assert.equal(machine.onnxruntimeError, null);
  assert.ok(machine.providers?.some(({ name, installed }) => name === 'cpu' && installed));
});
