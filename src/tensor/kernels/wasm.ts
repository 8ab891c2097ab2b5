/**
 * The wasm-SIMD kernels over a memory of their own. Views given to a kernel must lie in that memory; the memory is
 * sized up front and never grows, so views stay valid for its life. One instance belongs to one thread.
 */
import { assert } from '../../std/assert.ts';
import { adamwConstants } from './adamw-constants.ts';
import { assertEncoded, assertRanks, assertScatter, rowLength, sameLength } from './arguments.ts';
import { type AdamWOptions, type KernelMemory, rowsMax } from './kernels.ts';
import type { BlockLayout } from './layout.ts';
import { kernelModuleBase64 } from './module.wasm.ts';
import { sortingNetwork } from './sorting-network.ts';

type Kernel = (...args: number[]) => number;

/** Offsets of the area below `heapStart` that kernels use during a call. */
const rowTable = 0;
const coefficientTable = 256;
const sumTable = 512;
const networkTable = sumTable + rowsMax * rowsMax * 8;
const scratch = 4096;
const heapStart = 16384;

const pageBytes = 65536;
const bytesMax = 65536 * pageBytes;

let compiled: WebAssembly.Module | undefined;

function kernelModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(kernelModuleBase64), (c) => c.charCodeAt(0)));
  return compiled;
}

/**
 * A memory with room for `bytes` of allocations (each rounded up to 64 bytes), at most 4 GiB less 16 KiB. Pages
 * take real memory only when touched. Throws RangeError when the machine cannot give it.
 */
export function createKernelMemory({ bytes }: { bytes: number }): KernelMemory {
  const pages = Math.ceil((bytes + heapStart) / pageBytes);
  if (!(pages * pageBytes <= bytesMax))
    throw new RangeError(`a kernel memory holds at most 4 GiB, not ${bytes}`);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const { exports } = new WebAssembly.Instance(kernelModule(), { env: { memory } });
  return { ...allocator(memory.buffer), ...kernels(memory.buffer, exports as unknown as Exports) };
}

type Allocator = Pick<KernelMemory, 'allocF32' | 'allocI32' | 'allocBytes' | 'mark' | 'reset'>;

function allocator(buffer: ArrayBuffer): Allocator {
  let top = heapStart;
  // Untouched memory is zero already: clearing it would only cost pages.
  let dirty = heapStart;
  const take = (bytes: number) => {
    assert(Number.isSafeInteger(bytes) && bytes >= 0, `cannot allocate ${bytes} bytes`);
    const start = top;
    const end = start + Math.ceil(bytes / 64) * 64;
    if (end > buffer.byteLength) {
      throw new RangeError(
        `kernel memory is used up: ${bytes} bytes wanted, ${buffer.byteLength - top} left`,
      );
    }
    if (start < dirty) new Uint8Array(buffer, start, Math.min(end, dirty) - start).fill(0);
    top = end;
    dirty = Math.max(dirty, end);
    return start;
  };
  return {
    allocF32: (length) => new Float32Array(buffer, take(4 * length), length),
    allocI32: (length) => new Int32Array(buffer, take(4 * length), length),
    allocBytes: (length) => new Uint8Array(buffer, take(length), length),
    mark: () => top,
    reset: (position) => {
      assert(position >= heapStart && position <= top, 'reset to a position that mark() did not give');
      top = position;
    },
  };
}

type Exports = Record<
  | 'adamw'
  | 'addScaled'
  | 'allFinite'
  | 'combineRows'
  | 'densify'
  | 'dequantiseInt4'
  | 'dequantiseInt8'
  | 'dot'
  | 'gram'
  | 'orderMean'
  | 'outerStep'
  | 'quantiseInt4'
  | 'quantiseInt8'
  | 'scale'
  | 'scatterAddRows'
  | 'sparsify'
  | 'subtract',
  Kernel
>;

type Kernels = Omit<KernelMemory, keyof Allocator>;

function kernels(buffer: ArrayBuffer, wasm: Exports): Kernels {
  const at = (view: Float32Array | Int32Array | Uint8Array): number => {
    assert(view.buffer === buffer, 'a view outside the memory of these kernels');
    return view.byteOffset;
  };
  return {
    sumSquares: (x, carry = 0) => wasm.dot(at(x), at(x), x.length, carry),
    dot: (a, b, carry = 0) => wasm.dot(at(a), at(b), sameLength(a, b), carry),
    allFinite: (x) => wasm.allFinite(at(x), x.length) !== 0,
    subtract: (out, a, b) => void wasm.subtract(at(out), at(a), at(b), sameLength(out, a, b)),
    addScaled: (y, x, s) => void wasm.addScaled(at(y), at(x), s, sameLength(y, x)),
    scale: (x, s) => void wasm.scale(at(x), s, x.length),
    adamw: (w, g, m, v, options: AdamWOptions) => {
      const c = adamwConstants(options);
      const length = sameLength(w, g, m, v);
      wasm.adamw(
        ...[at(w), at(g), at(m), at(v), length, options.gradientScale, c.decay, c.oneMinusBeta1],
        ...[options.beta2, c.oneMinusBeta2, c.stepSize, c.rootCorrection2, options.epsilon],
      );
    },
    scatterAddRows: (table, ids, rows, width) => {
      assertScatter(table, ids, rows, width);
      wasm.scatterAddRows(at(table), at(ids), at(rows), ids.length, width);
    },
    outerStep: (w, v, g, learningRate, momentum) =>
      void wasm.outerStep(at(w), at(v), at(g), learningRate, momentum, sameLength(w, v, g)),
    ...rowKernels(buffer, wasm, at),
    encode: (layout, out, x) => {
      assertEncoded(layout, out, x);
      encoders(wasm)[layout](at(out), at(x), x.length, scratch);
    },
    decode: (layout, out, bytes) => {
      assertEncoded(layout, bytes, out);
      decoders(wasm)[layout](at(out), at(bytes), out.length);
    },
  };
}

function encoders(wasm: Exports): Record<BlockLayout, Kernel> {
  return { int8: wasm.quantiseInt8, int4: wasm.quantiseInt4, sparse: wasm.sparsify };
}

function decoders(wasm: Exports): Record<BlockLayout, Kernel> {
  return { int8: wasm.dequantiseInt8, int4: wasm.dequantiseInt4, sparse: wasm.densify };
}

/** Kernels over a table of rows, which is written below the heap first. */
function rowKernels(
  buffer: ArrayBuffer,
  wasm: Exports,
  at: (view: Float32Array) => number,
): Pick<Kernels, 'gram' | 'combineRows' | 'orderMean'> {
  const addresses = new Uint32Array(buffer, rowTable, rowsMax);
  const coefficientsF64 = new Float64Array(buffer, coefficientTable, rowsMax);
  const scalesF32 = new Float32Array(buffer, coefficientTable, rowsMax);
  const sumsF64 = new Float64Array(buffer, sumTable, rowsMax * rowsMax);
  const networkBytes = new Uint8Array(buffer, networkTable, scratch - networkTable);
  const networks = new Map<number, Uint8Array>();
  const place = (rows: readonly Float32Array[]) => {
    const length = rowLength(rows);
    for (const [i, row] of rows.entries()) addresses[i] = at(row);
    return length;
  };
  return {
    gram: (rows, sums) => {
      const n = rows.length;
      const length = place(rows);
      assert(sums.length === n * n, 'gram: sums must hold rows × rows');
      sumsF64.set(sums);
      wasm.gram(rowTable, n, length, sumTable, scratch);
      sums.set(sumsF64.subarray(0, n * n));
    },
    combineRows: (out, rows, coefficients) => {
      place(rows);
      assert(coefficients.length === rows.length, 'one coefficient for each row');
      coefficientsF64.set(coefficients);
      wasm.combineRows(at(out), rowTable, coefficientTable, rows.length, sameLength(out, rows[0]!));
    },
    orderMean: (out, rows, scales, from, to) => {
      const n = rows.length;
      place(rows);
      assertRanks(scales, n, from, to);
      let network = networks.get(n);
      if (!network) networks.set(n, (network = Uint8Array.from(sortingNetwork(n).flat())));
      networkBytes.set(network);
      scalesF32.set(scales);
      const length = sameLength(out, rows[0]!);
      wasm.orderMean(
        ...[at(out), rowTable, coefficientTable, n, length],
        ...[networkTable, network.length / 2, from, to, scratch],
      );
    },
  };
}
