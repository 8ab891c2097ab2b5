/**
 * Aggregation and outer step: 8 contributions × 10M parameters on one core, every rule, dense (f32) and sparse blobs.
 * Prints seconds of the best run and the memory beside the blobs, w and v.
 * Run: node bench/aggregation.ts [parameters] [contributions] [codec ...]
 */
import { aggregate } from '../src/diloco/aggregation/aggregate.ts';
import { type AggregationRule, defaultRuleFor } from '../src/diloco/aggregation/rules.ts';
import { streamBytes } from '../src/diloco/aggregation/stream.ts';
import {
  type BlobShape,
  blobBytes,
  createBlob,
  decodeRange,
  encodeRange,
} from '../src/diloco/compression/blob.ts';
import type { CodecName } from '../src/diloco/compression/codec.ts';
import { createKernelMemory } from '../src/tensor/kernels/wasm.ts';

const length = Number(process.argv[2] ?? 10_000_000);
const n = Number(process.argv[3] ?? 8);
const codecNames = (
  process.argv.length > 4 ? process.argv.slice(4) : ['f32', 'int8', 'sparse']
) as CodecName[];
const repeats = 3;

const state = createKernelMemory({ bytes: 3 * (4 * length + 64) });
const [w, v, g] = [0, 1, 2].map(() => state.allocF32(length)) as [Float32Array, Float32Array, Float32Array];

// Touched now, so that their pages do not count as the aggregation's.
for (const view of [w, v, g]) view.fill(1e-3);

/** A blob of noise around a direction that all contributions share. */
function contribution(shape: BlobShape, seed: number): Uint8Array {
  const blob = createBlob(shape.codec, length);
  const memory = createKernelMemory({ bytes: 1 << 20 });
  const piece = memory.allocF32(65_536);
  let common = 1;
  let own = seed;
  for (let start = 0; start < length; start += piece.length) {
    const part = piece.subarray(0, length - start);
    for (let i = 0; i < part.length; i++) {
      common = (Math.imul(common, 1664525) + 1013904223) | 0;
      own = (Math.imul(own, 1103515245) + 12345) | 0;
      part[i] = (common + own) * 2 ** -41;
    }
    encodeRange(blob, shape, start, part, memory);
  }
  return blob;
}

function seconds(body: () => void): number {
  const start = performance.now();
  body();
  return (performance.now() - start) / 1000;
}

for (const codec of codecNames) {
  const shape: BlobShape = { codec, length };
  const rules: readonly AggregationRule[] = [
    { name: 'mean' },
    { name: 'trimmed-mean', beta: 0.2 },
    { name: 'median' },
    { name: 'multi-krum' },
    { name: 'geometric-median' },
    defaultRuleFor(codec),
  ];
  const blobs = Array.from({ length: n }, (_, i) => contribution(shape, 7 * i + 3));
  const kernels = createKernelMemory({ bytes: streamBytes(n) + (1 << 20) });
  const before = process.memoryUsage().rss;
  let peak = 0;
  console.log(
    `\n${codec}: ${n} × ${length} parameters, ${(blobBytes(codec, length) / 1e6).toFixed(2)} MB each`,
  );
  for (const rule of rules) {
    let best = Infinity;
    for (let run = 0; run < repeats; run++) {
      const elapsed = seconds(() => {
        aggregate({
          rule,
          contributions: blobs.map((blob, i) => ({
            weight: 1 + i,
            read: (start, out) => decodeRange(blob, shape, start, out, kernels),
          })),
          length,
          kernels,
          write: (start, chunk) => g.set(chunk, start),
        });
        state.outerStep(w, v, g, 0.7, 0.9);
      });
      best = Math.min(best, elapsed);
      peak = Math.max(peak, process.memoryUsage().rss);
    }
    console.log(`${rule.name.padEnd(22)} ${best.toFixed(3)} s`);
  }
  console.log(`memory beside blobs, w, v and g: ${((peak - before) / 1e6).toFixed(1)} MB`);
}
