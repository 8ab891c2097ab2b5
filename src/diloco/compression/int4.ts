/** The int4 codec: blocks of 256 with an f32 absmax scale; `tensor/kernels/blocks.ts` defines the bytes. */
import { blockwiseCodec } from './codec.ts';
import { checkScaledBlock } from './scaled-block.ts';

export const int4 = blockwiseCodec('int4', {
  id: 2,
  feedbackDecay: 1,
  checkBlock: (block, length) =>
    checkScaledBlock(block, 7, (limit) => {
      if (length % 2 === 1 && block.at(-1)! >> 4 !== 0) return false;
      let most = 0;
      for (let i = 4; i < block.length; i++) {
        const low = Math.abs((block[i]! << 28) >> 28);
        const high = Math.abs((block[i]! << 24) >> 28);
        most = Math.max(most, low, high);
      }
      return most === limit;
    }),
});
