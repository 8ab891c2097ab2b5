/** The table of codecs: one entry for each name a network can choose. */
import type { Codec, CodecName } from './codec.ts';
import { f32 } from './f32.ts';
import { int4 } from './int4.ts';
import { int8 } from './int8.ts';
import { sparse } from './sparse.ts';

export const codecs: Readonly<Record<CodecName, Codec>> = { f32, int8, int4, sparse };
