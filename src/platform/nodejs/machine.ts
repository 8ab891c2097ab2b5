/** Facts about this machine: processor, memory, disk, GPUs, tensor providers, ports. Judges nothing. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';

export interface Gpu {
  readonly vendor: 'nvidia' | 'amd' | 'apple' | 'unknown';
  readonly name: string;
  /** Null where the system does not say. */
  readonly memoryBytes: number | null;
}

export interface Provider {
  /** As ONNX Runtime names it: `cpu`, `webgpu`, `cuda`, `coreml`, `dml`. */
  readonly name: string;
  /** Its files are here; whether its driver is, only running it shows. */
  readonly installed: boolean;
}

export interface Machine {
  readonly nodeVersion: string;
  readonly platform: string;
  readonly arch: string;
  readonly cpuModel: string;
  /** Processors that this process may use (containers give fewer than the machine has). */
  readonly cores: number;
  readonly memoryBytes: number;
  readonly memoryFreeBytes: number;
  /** Under the folder asked for; null where the system does not say. */
  readonly diskFreeBytes: number | null;
  readonly gpus: readonly Gpu[];
  /** Null when ONNX Runtime does not load; then `onnxruntimeError` says why. */
  readonly providers: readonly Provider[] | null;
  readonly onnxruntimeError: string | null;
}

export async function describeMachine(folder: string): Promise<Machine> {
  const [diskFreeBytes, gpus] = await Promise.all([freeDisk(folder), findGpus()]);
  return {
    nodeVersion: process.versions.node,
    platform: process.platform,
    arch: process.arch,
    cpuModel: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: machineMemoryBytes(),
    memoryFreeBytes: process.availableMemory?.() ?? freemem(),
    diskFreeBytes,
    gpus,
    ...findProviders(),
  };
}

/** What this process may have at most: the machine's, or its container's. */
export function machineMemoryBytes(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}

async function freeDisk(folder: string): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch {
    return null;
  }
}

async function findGpus(): Promise<Gpu[]> {
  const nvidia = await run('nvidia-smi', ['--query-gpu=name,memory.total', '--format=csv,noheader,nounits']);
  if (nvidia !== undefined) return parseNvidiaSmi(nvidia);
  if (process.platform === 'darwin' && process.arch === 'arm64') {
    return [{ vendor: 'apple', name: 'Apple GPU', memoryBytes: null }];
  }
  if (existsSync('/dev/nvidia0'))
    return [{ vendor: 'nvidia', name: 'NVIDIA GPU without nvidia-smi', memoryBytes: null }];
  if (existsSync('/dev/kfd')) return [{ vendor: 'amd', name: 'AMD GPU (/dev/kfd)', memoryBytes: null }];
  const cards = existsSync('/dev/dri')
    ? readdirSync('/dev/dri').filter((name) => name.startsWith('renderD'))
    : [];
  return cards.map((name) => ({ vendor: 'unknown', name: `GPU at /dev/dri/${name}`, memoryBytes: null }));
}

/** Lines of `name, MiB`. */
export function parseNvidiaSmi(text: string): Gpu[] {
  const rows = text.split('\n').map((line) => /^(.+),\s*([^,]+)$/.exec(line.trim()));
  return rows.flatMap((row) => {
    if (row === null) return [];
    const mebibytes = Number(row[2]);
    return [
      {
        vendor: 'nvidia',
        name: row[1]!.trim(),
        memoryBytes: Number.isFinite(mebibytes) ? mebibytes * 2 ** 20 : null,
      },
    ];
  });
}

/** Standard output, or undefined when the program is not there, fails or takes longer than 5 s. */
function run(program: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(program, [...args], { timeout: 5_000, maxBuffer: 2 ** 20 }, (error, stdout) => {
      resolve(error === null ? stdout : undefined);
    });
  });
}

function findProviders(): { providers: Provider[] | null; onnxruntimeError: string | null } {
  try {
    const require = createRequire(import.meta.url);
    const { listSupportedBackends } = require('onnxruntime-node') as typeof import('onnxruntime-node');
    const folder = join(dirname(require.resolve('onnxruntime-node/package.json')), 'bin', 'napi-v6');
    const cudaFile = join(folder, process.platform, process.arch, 'libonnxruntime_providers_cuda.so');
    const providers = listSupportedBackends().map(({ name, bundled }) => ({
      name,
      installed: bundled || (name === 'cuda' && existsSync(cudaFile)),
    }));
    return { providers, onnxruntimeError: null };
  } catch (error) {
    return {
      providers: null,
      onnxruntimeError: error instanceof Error ? error.message.split('\n')[0]! : String(error),
    };
  }
}

/** Whether a server could listen there now. */
export function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, host, () => server.close(() => resolve(true)));
  });
}
