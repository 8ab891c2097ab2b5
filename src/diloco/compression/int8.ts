/** The int8 codec: blocks of 256 with an f32 absmax scale; `tensor/kernels/blocks.ts` defines the bytes. */
import { blockwiseCodec } from './codec.ts';
import { checkScaledBlock } from './scaled-block.ts';

export const int8 = blockwiseCodec('int8', {
  id: 1,
  feedbackDecay: 1,
  checkBlock: (block) =>
    checkScaledBlock(block, 127, (limit) => {
      let most = 0;
      for (let i = 4; i < block.length; i++) {
        const code = (block[i]! << 24) >> 24;
        most = Math.max(most, Math.abs(code));
      }
      return most === limit;
    }),
});
