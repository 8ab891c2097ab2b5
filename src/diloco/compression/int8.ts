/** The int8 codec: blocks of 256 with an f32 absmax scale; `tensor/kernels/blocks.ts` defines the bytes. */
import { blockwiseCodec } from './codec.ts';
import { checkScaledBlock } from './scaled-block.ts';

export const int8 = blockwiseCodec('int8', {
  id: 1,
  feedbackDecay: 1,
  checkBlock: (payload, from, to) => checkScaledBlock(payload, from, to, 127, isFull),
});

/** Whether a byte of the four is `repeated`'s byte: the classic test for a zero byte after exclusive or. */
function holds(word: number, repeated: number): boolean {
  const x = word ^ repeated;
  return ((x - 0x01010101) & ~x & 0x80808080) !== 0;
}

/** −128 has no place in a symmetric code; 127 and −127 are its ends. Four codes at a time: a blob has millions. */
function isFull(codes: Uint8Array, from: number, to: number): boolean {
  let full = false;
  let i = from;
  for (; i + 4 <= to; i += 4) {
    const word = codes[i]! | (codes[i + 1]! << 8) | (codes[i + 2]! << 16) | (codes[i + 3]! << 24);
    if (holds(word, 0x80808080)) return false;
    full ||= holds(word, 0x7f7f7f7f) || holds(word, 0x81818181);
  }
  for (; i < to; i++) {
    if (codes[i] === 0x80) return false;
    full ||= codes[i] === 0x7f || codes[i] === 0x81;
  }
  return full;
}
