/**
 * Tables of rotary position embedding (Su et al. 2021) in Hugging Face's rotate-half layout. They are baked into
 * graphs whose results are hashed, so they are bit-equal everywhere. Rounding to f32 happens where PyTorch does it.
 */
import { exponential, logarithm, sineCosine } from '../std/elementary.ts';

export interface RotaryTables {
  /** [positions, headWidth / 2]. */
  readonly cosine: Float32Array;
  /** [positions, headWidth / 2]. */
  readonly sine: Float32Array;
}

/**
 * Angles of positions [0, positions): position / theta^(2i / headWidth). Frequencies and angles are rounded to f32 as
 * in Hugging Face's `LlamaRotaryEmbedding`.
 */
export function rotaryTables(positions: number, headWidth: number, theta: number): RotaryTables {
  const half = headWidth / 2;
  const cosine = new Float32Array(positions * half);
  const sine = new Float32Array(positions * half);
  const logTheta = logarithm(theta);
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(1 / Math.fround(exponential(logTheta * ((2 * i) / headWidth))));
    for (let position = 0; position < positions; position++) {
      const [sin, cos] = sineCosine(Math.fround(frequency * position));
      cosine[position * half + i] = cos;
      sine[position * half + i] = sin;
    }
  }
  return { cosine, sine };
}
