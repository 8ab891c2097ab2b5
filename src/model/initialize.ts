/**
 * Initial values as a pure function of (network seed, parameter name), bit-equal in every JavaScript engine: integer
 * draws, and only +, −, ×, ÷ and √ on doubles. It knows no optimizer and stores nothing.
 */
import { assert } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256, taggedHash } from '../std/hash.ts';
import { type Random, seededRandom } from '../std/random.ts';
import type { ModelConfig } from './config.ts';

const deviation = 0.02;

/** The sum of twelve integers uniform in [0, 2^16): its mean, and its deviation √(2^32 − 1). */
const sumMean = 12 * 32_767.5;
const sumDeviation = Math.sqrt(4_294_967_295);

/** Projections that write into the residual stream, twice per layer. */
function writesResidual(name: string): boolean {
  return name.endsWith('.o_proj.weight') || name.endsWith('.down_proj.weight');
}

/** A random stream that belongs to this name alone. */
function parameterRandom(seed: Uint8Array, name: string): Random {
  return seededRandom(taggedHash('neuroshard/initialize/1', sha256(seed), utf8(name)));
}

/**
 * Fills `out` with samples whose distribution is the Irwin–Hall approximation of a normal one (twelve uniforms; tails
 * end at six deviations), mean 0 and the given standard deviation.
 */
function fillNormal(out: Float32Array, random: Random, standardDeviation: number): void {
  const scale = standardDeviation / sumDeviation;
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let pair = 0; pair < 6; pair++) {
      const draw = random.uint32();
      sum += (draw & 0xffff) + (draw >>> 16);
    }
    out[i] = (sum - sumMean) * scale;
  }
}

/**
 * The initial value of one parameter: norms 1, matrices N(0, 0.02²), and those that write into the residual stream
 * divided by √(2·layers) (Radford et al. 2019, section 2.3). Written into `out` if given, which must have its size.
 */
export function initialParameter(
  seed: Uint8Array,
  name: string,
  shape: readonly number[],
  config: ModelConfig,
  out: Float32Array = new Float32Array(shape.reduce((product, length) => product * length, 1)),
): Float32Array {
  assert(out.length === shape.reduce((product, length) => product * length, 1), `${name}: wrong size`);
  if (shape.length === 1) return out.fill(1);
  const scaled = writesResidual(name) ? deviation / Math.sqrt(2 * config.layers) : deviation;
  fillNormal(out, parameterRandom(seed, name), scaled);
  return out;
}
