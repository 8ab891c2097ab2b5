/** The int8 codec: blocks of 256 with an f32 absmax scale; `tensor/kernels/blocks.ts` defines the bytes. */
import { blockwiseCodec } from './codec.ts';
import { checkScaledBlock } from './scaled-block.ts';

export const int8 = blockwiseCodec('int8', {
  id: 1,
  feedbackDecay: 1,
  checkBlock: (payload, from, to) => checkScaledBlock(payload, from, to, 127, isFull),
});

/** −128 has no place in a symmetric code; 127 and −127 are its ends. */
function isFull(codes: Uint8Array, from: number, to: number): boolean {
  let full = false;
  for (let i = from; i < to; i++) {
    const code = codes[i]!;
    if (code === 128) return false;
    if (code === 127 || code === 129) full = true;
  }
  return full;
}
