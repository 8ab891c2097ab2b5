/**
 * How a flat vector of f32 is cut into encoded blocks: sizes only. The bytes inside a block are defined by
 * `blocks.ts` (the oracle) and `assembly/`.
 */

export type BlockLayout = 'int8' | 'int4' | 'sparse';

/** Elements of one block; only the last of a vector may be shorter. */
export const blockLength: Readonly<Record<BlockLayout, number>> = { int8: 256, int4: 256, sparse: 4096 };

/** How many of `length` elements of one sparse chunk are kept: 64 of 4096. */
export function keptOf(length: number): number {
  return Math.ceil(length / 64);
}

/** Bytes of one block of `length` elements. */
export function blockBytes(layout: BlockLayout, length: number): number {
  if (layout === 'int8') return 4 + length;
  if (layout === 'int4') return 4 + Math.ceil(length / 2);
  const kept = keptOf(length);
  return 4 + 2 * Math.ceil((2 * kept) / 8) + Math.ceil((6 * kept) / 8);
}

/** Bytes of a vector of `length` elements. */
export function encodedBytes(layout: BlockLayout, length: number): number {
  const block = blockLength[layout];
  const tail = length % block;
  return ((length - tail) / block) * blockBytes(layout, block) + (tail > 0 ? blockBytes(layout, tail) : 0);
}
