/** The int4 codec: blocks of 256 with an f32 absmax scale; `tensor/kernels/blocks.ts` defines the bytes. */
import { blockwiseCodec } from './codec.ts';
import { checkScaledBlock } from './scaled-block.ts';

export const int4 = blockwiseCodec('int4', {
  id: 2,
  feedbackDecay: 1,
  checkBlock: (payload, from, to, length) => {
    const padded = length % 2 === 1 && payload[to - 1]! >> 4 !== 0;
    return checkScaledBlock(payload, from, to, 7, padded ? never : isFull);
  },
});

const never = () => false;

/** −8 has no place in a symmetric code; 7 and −7 are its ends. */
function isFull(codes: Uint8Array, from: number, to: number): boolean {
  let full = false;
  for (let i = from; i < to; i++) {
    const low = codes[i]! & 15;
    const high = codes[i]! >> 4;
    if (low === 8 || high === 8) return false;
    if (low === 7 || low === 9 || high === 7 || high === 9) full = true;
  }
  return full;
}
