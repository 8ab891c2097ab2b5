/**
 * The sparse codec: of every 4096 elements the 64 of largest magnitude, as a sign and one of two levels; 84 bytes a
 * chunk. What is left out returns through the error feedback. `tensor/kernels/blocks.ts` defines the bytes.
 * Source: SparseLoCo (arXiv 2508.15706); its 12-bit indices would take 116 bytes with our two levels.
 */
import { type Rejection, reject } from '../../std/outcome.ts';
import { getBits, sparseParts } from '../../tensor/kernels/blocks.ts';
import { keptOf } from '../../tensor/kernels/layout.ts';
import { blockwiseCodec } from './codec.ts';

const bf16Infinity = 0x7f80;

export const sparse = blockwiseCodec('sparse', {
  id: 3,
  feedbackDecay: 0.95,
  checkBlock: (payload, from, to, length) => {
    const block = payload.subarray(from, to);
    const low = block[0]! | (block[1]! << 8);
    const high = block[2]! | (block[3]! << 8);
    if (low >= bf16Infinity || high >= bf16Infinity)
      return reject('bad-scale', 'a level is negative or not finite');
    if (low > high) return reject('bad-scale', 'levels out of order');
    return checkIndices(block, length, high === 0) ?? checkCodes(block, keptOf(length), low, high);
  },
});

/** Indices ascend, lie inside the chunk and are as many as they must be. A chunk of zeros names its first places. */
function checkIndices(block: Uint8Array, length: number, isZero: boolean): Rejection | undefined {
  const kept = keptOf(length);
  const { buckets, places } = sparseParts(kept);
  let found = 0;
  let previous = -1;
  for (let bit = 0; bit < 2 * kept; bit++) {
    if (getBits(block, 8 * buckets + bit, 1) === 0) continue;
    if (found === kept) return reject('bad-index', 'too many indices');
    const index = 64 * (bit - found) + getBits(block, 8 * places + 6 * found, 6);
    if (index <= previous) return reject('bad-index', 'indices out of order');
    if (index >= length) return reject('bad-index', `index ${index} of ${length}`);
    if (isZero && index !== found) return reject('not-canonical', 'a zero chunk with chosen places');
    previous = index;
    found++;
  }
  if (found !== kept) return reject('bad-index', `${found} indices, not ${kept}`);
  return undefined;
}

function checkCodes(block: Uint8Array, kept: number, low: number, high: number): Rejection | undefined {
  const { places, codes } = sparseParts(kept);
  const used = [false, false];
  for (let i = 0; i < kept; i++) {
    const code = getBits(block, 8 * codes + 2 * i, 2);
    used[code & 1] = true;
    if (code & 2 && (code & 1 ? high : low) === 0) return reject('not-canonical', 'a negative zero');
  }
  if (low === high ? used[1] : !(used[0] && used[1]))
    return reject('not-canonical', 'levels and codes disagree');
  const isPadded = (start: number, bits: number) =>
    (8 - (bits % 8)) % 8 !== 0 && getBits(block, 8 * start + bits, (8 - (bits % 8)) % 8) !== 0;
  if (isPadded(4, 2 * kept) || isPadded(places, 6 * kept) || isPadded(codes, 2 * kept)) {
    return reject('not-canonical', 'padding bits');
  }
  return undefined;
}
