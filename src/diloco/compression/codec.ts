/**
 * What a compression codec is: a way to turn blocks of a flat f32 vector into bytes and back, and to check bytes that
 * a peer sent. Sizes depend on lengths only, so any aligned range can be decoded alone. It knows no blob header.
 */
import type { Rejection } from '../../std/outcome.ts';
import type { KernelMemory } from '../../tensor/kernels/kernels.ts';
import { type BlockLayout, blockBytes, blockLength, encodedBytes } from '../../tensor/kernels/layout.ts';

export type CodecName = 'f32' | 'int8' | 'int4' | 'sparse';

export interface Codec {
  readonly name: CodecName;
  /** Its number in the blob header. */
  readonly id: number;
  /** Elements of one block: ranges begin at multiples of it, and end at one or at the vector's end. */
  readonly blockLength: number;
  /** Factor on the error feedback kept from the last round. */
  readonly feedbackDecay: number;
  /** Bytes of `length` elements. */
  payloadBytes(length: number): number;
  /** Both take whole ranges; `x` and `out` lie in the memory of `kernels`, bytes anywhere. */
  encode(payload: Uint8Array, x: Float32Array, kernels: KernelMemory): void;
  decode(out: Float32Array, payload: Uint8Array, kernels: KernelMemory): void;
  /** What is wrong with the payload of a vector of `length` elements, whose size is right already. */
  check(payload: Uint8Array, length: number): Rejection | undefined;
}

/** Elements staged at a time, so that encoding needs little room beside the vectors themselves. */
const stageLength = 16_384;

/** The f32 elements of a block layout of the kernels, staged through their memory. */
export function blockwiseCodec(
  layout: BlockLayout,
  rest: Pick<Codec, 'id' | 'feedbackDecay'> & {
    /** Of the block of `length` elements at [from, to): a blob has thousands, so none gets a view of its own. */
    checkBlock(payload: Uint8Array, from: number, to: number, length: number): Rejection | undefined;
  },
): Codec {
  const staged = (
    x: Float32Array,
    payload: Uint8Array,
    kernels: KernelMemory,
    visit: (part: Float32Array, bytes: Uint8Array, stage: Uint8Array) => void,
  ) => {
    const position = kernels.mark();
    const stage = kernels.allocBytes(encodedBytes(layout, Math.min(stageLength, x.length)));
    let at = 0;
    for (let start = 0; start < x.length; start += stageLength) {
      const part = x.subarray(start, start + stageLength);
      const size = encodedBytes(layout, part.length);
      visit(part, payload.subarray(at, at + size), stage.subarray(0, size));
      at += size;
    }
    kernels.reset(position);
  };
  return {
    name: layout,
    id: rest.id,
    blockLength: blockLength[layout],
    feedbackDecay: rest.feedbackDecay,
    payloadBytes: (length) => encodedBytes(layout, length),
    encode: (payload, x, kernels) =>
      staged(x, payload, kernels, (part, bytes, stage) => {
        kernels.encode(layout, stage, part);
        bytes.set(stage);
      }),
    decode: (out, payload, kernels) =>
      staged(out, payload, kernels, (part, bytes, stage) => {
        stage.set(bytes);
        kernels.decode(layout, part, stage);
      }),
    check: (payload, length) => {
      let at = 0;
      for (let start = 0; start < length; start += blockLength[layout]) {
        const elements = Math.min(blockLength[layout], length - start);
        const size = blockBytes(layout, elements);
        const problem = rest.checkBlock(payload, at, at + size, elements);
        if (problem) return problem;
        at += size;
      }
      return undefined;
    },
  };
}

const scaleView = new Float32Array(1);
const scaleBytes = new Uint8Array(scaleView.buffer);

/** The f32 at the start of the block at `from`. */
export function scaleAt(payload: Uint8Array, from: number): number {
  for (let i = 0; i < 4; i++) scaleBytes[i] = payload[from + i]!;
  return scaleView[0]!;
}
