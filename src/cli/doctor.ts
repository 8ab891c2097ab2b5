/**
 * `doctor`: what this machine can do, what stands in the way, and what to install for its GPU. Judges the facts that
 * `platform/nodejs/machine.ts` gathers; starts nothing.
 */
import type { Command } from 'commander';
import { type ModelConfig, parameterCount, presetConfig, presets } from '../model/config.ts';
import { describeMachine, isPortFree, type Machine } from '../platform/nodejs/machine.ts';
import { action, defineCommand } from './command.ts';
import { formatBytes, formatCount } from './progress.ts';

export interface Finding {
  readonly name: string;
  /** `fail`: a node cannot run here; `warn`: it can, but something is missing. */
  readonly status: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** What to do about it. */
  readonly advice?: string;
}

const nodeMajorMin = 24;
const gigabyte = 1e9;
const apiPort = 8000;

/**
 * Bytes a node holds for each parameter in f32: weight, gradient, two AdamW moments, and DiLoCo's round weight, outer
 * momentum and error feedback. Activations and the runtime come on top.
 */
const bytesPerParameter = 7 * 4;
/** The runtime, ONNX Runtime and the network stack of one node. */
const bytesOfProcess = 0.4 * gigabyte;

export function register(program: Command): void {
  defineCommand(program, {
    name: 'doctor',
    summary: 'what this machine can do, and what to install for its GPU',
    description: `Looks at this machine (processor, memory, disk, GPU, ports) and says which model sizes it can train,
what is missing, and how to get it. Changes nothing. Exits with 1 when a node cannot run here.`,
    examples: [
      ['doctor', 'the findings, one line each'],
      ['doctor --json', 'the same for a program'],
    ],
  }).action(
    action(async () => {
      const machine = await describeMachine(process.cwd());
      const findings = judge(machine, await isPortFree(apiPort));
      const failed = findings.some(({ status }) => status === 'fail');
      return { json: { machine, presets: presetFits(machine), findings }, text: describe(findings), failed };
    }),
  );
}

export function judge(machine: Machine, isApiPortFree: boolean): Finding[] {
  return [
    judgeNode(machine),
    {
      name: 'processor',
      status: machine.cores >= 2 ? 'ok' : 'warn',
      detail: `${machine.cores} x ${machine.cpuModel} (${machine.platform} ${machine.arch})`,
      ...(machine.cores >= 2 ? {} : { advice: 'one core works; the demo with its four nodes will be slow' }),
    },
    judgeMemory(machine),
    judgeDisk(machine),
    judgeRuntime(machine),
    judgeGpu(machine),
    {
      name: 'port',
      status: isApiPortFree ? 'ok' : 'warn',
      detail: `${apiPort} on 127.0.0.1 is ${isApiPortFree ? 'free' : 'in use'}`,
      ...(isApiPortFree
        ? {}
        : { advice: `start a node with another port for its API, e.g. --api-port ${apiPort + 1}` }),
    },
  ];
}

function judgeNode({ nodeVersion }: Machine): Finding {
  const isNewEnough = Number(nodeVersion.split('.')[0]) >= nodeMajorMin;
  if (isNewEnough) return { name: 'node', status: 'ok', detail: nodeVersion };
  const advice = `in a checkout run 'npm ci', which brings Node ${nodeMajorMin}; else https://nodejs.org/en/download`;
  return { name: 'node', status: 'fail', detail: `${nodeVersion}, needs ${nodeMajorMin}`, advice };
}

export interface PresetFit {
  readonly preset: string;
  readonly parameters: number;
  /** Weights, gradients, moments and DiLoCo buffers, one batch of activations, and the process itself. */
  readonly memoryBytes: number;
  readonly fits: boolean;
}

export function presetFits(machine: Machine): PresetFit[] {
  return Object.keys(presets).map((preset) => {
    const config = presetConfig(preset);
    const parameters = parameterCount(config);
    const memoryBytes = Math.round(parameters * bytesPerParameter + activationBytes(config) + bytesOfProcess);
    return { preset, parameters, memoryBytes, fits: memoryBytes <= machine.memoryFreeBytes };
  });
}

/** A sequence of full length in f32: about 16 values of the width and 4 of the FFN for a layer and token, plus logits. */
function activationBytes(config: ModelConfig): number {
  const perToken = config.layers * (16 * config.width + 4 * config.ffn) + 2 * config.vocabulary;
  return 4 * config.context * perToken;
}

function judgeMemory(machine: Machine): Finding {
  const fits = presetFits(machine);
  const sizes = fits
    .filter((each) => each.fits)
    .map(
      (each) =>
        `${each.preset} (${formatCount(each.parameters)} parameters, ${formatBytes(each.memoryBytes)} a node)`,
    );
  const detail = `${formatBytes(machine.memoryFreeBytes)} free of ${formatBytes(machine.memoryBytes)}`;
  if (sizes.length === 0) {
    const advice = `the smallest preset needs ${formatBytes(fits[0]!.memoryBytes)}: close other programs`;
    return { name: 'memory', status: 'fail', detail, advice };
  }
  return { name: 'memory', status: 'ok', detail: `${detail}; can train ${sizes.join(', ')}` };
}

function judgeDisk({ diskFreeBytes }: Machine): Finding {
  if (diskFreeBytes === null)
    return { name: 'disk', status: 'ok', detail: 'the system does not say how much is free' };
  const detail = `${formatBytes(diskFreeBytes)} free here`;
  if (diskFreeBytes >= gigabyte) return { name: 'disk', status: 'ok', detail };
  return {
    name: 'disk',
    status: 'warn',
    detail,
    advice: 'snapshots need room: free a gigabyte or choose another folder',
  };
}

function judgeRuntime({ providers, onnxruntimeError, platform, arch }: Machine): Finding {
  if (providers === null) {
    const advice = `run 'npm ci' again; ONNX Runtime has no build for every system, this is ${platform} ${arch}`;
    return {
      name: 'tensor engine',
      status: 'fail',
      detail: `ONNX Runtime does not load: ${onnxruntimeError}`,
      advice,
    };
  }
  const installed = providers.filter((each) => each.installed).map((each) => each.name);
  return { name: 'tensor engine', status: 'ok', detail: `ONNX Runtime with ${installed.join(', ')}` };
}

function judgeGpu({ gpus, providers, platform, arch }: Machine): Finding {
  const gpu = gpus[0];
  if (gpu === undefined)
    return { name: 'gpu', status: 'ok', detail: 'none found: training runs on the processor' };
  const memory = gpu.memoryBytes === null ? '' : `, ${formatBytes(gpu.memoryBytes)}`;
  const detail = `${gpus.length} x ${gpu.name}${memory}`;
  const has = (name: string) => providers?.some((each) => each.name === name && each.installed) === true;
  if (gpu.vendor === 'nvidia' && platform === 'linux' && arch === 'x64') {
    if (has('cuda')) {
      return {
        name: 'gpu',
        status: 'ok',
        detail: `${detail}; the cuda provider is installed (it needs CUDA 12 and cuDNN 9)`,
      };
    }
    return {
      name: 'gpu',
      status: 'warn',
      detail: `${detail}; the cuda provider is not installed`,
      advice: cudaAdvice,
    };
  }
  if (has('webgpu')) return { name: 'gpu', status: 'ok', detail: `${detail}; try it with --provider webgpu` };
  return {
    name: 'gpu',
    status: 'warn',
    detail,
    advice: 'no provider for it here: training runs on the processor',
  };
}

const cudaAdvice =
  'install CUDA 12 and cuDNN 9 (https://developer.nvidia.com/cudnn), then fetch the provider: ' +
  'node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install=cuda12';

function describe(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, status, detail, advice }) => {
    const line = `${status.padEnd(4)}  ${name.padEnd(width)}  ${detail}`;
    return advice === undefined ? [line] : [line, `${' '.repeat(width + 8)}-> ${advice}`];
  });
  return lines.join('\n');
}
