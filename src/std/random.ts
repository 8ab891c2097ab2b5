/**
 * Randomness, handed in. `seededRandom` is the deterministic generator of the simulator, the sampler and
 * initialisation: integer arithmetic only, so every JavaScript engine gives the same sequence.
 * Source of sfc32: Chris Doty-Humphrey, PractRand.
 */

export interface Random {
  /** Uniform integer in [0, 2^32). */
  uint32(): number;
}

/** sfc32 over a 128-bit seed: the first 16 bytes of `seed`, usually a hash. */
export function seededRandom(seed: Uint8Array): Random {
  const view = new DataView(seed.buffer, seed.byteOffset, seed.byteLength);
  let a = view.getUint32(0, true) | 0;
  let b = view.getUint32(4, true) | 0;
  let c = view.getUint32(8, true) | 0;
  let counter = view.getUint32(12, true) | 0;
  const uint32 = () => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) uint32();
  return { uint32 };
}

/** Uniform in [0, 1) with 32 random bits. */
export function uniform(random: Random): number {
  return random.uint32() / 4294967296;
}

/** Uniform integer in [0, bound), without modulo bias. `bound` in [1, 2^32]. */
export function uniformBelow(random: Random, bound: number): number {
  const limit = 4294967296 - (4294967296 % bound);
  for (;;) {
    const draw = random.uint32();
    if (draw < limit) return draw % bound;
  }
}
