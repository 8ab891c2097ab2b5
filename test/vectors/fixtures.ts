/**
 * Fixtures of numbers computed elsewhere: a .json and a .safetensors of one name, in the folder that
 * NEUROSHARD_FIXTURES names, or the project's own copy.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, readSafetensors } from '../../src/model/safetensors.ts';

export const fixturesFolder = process.env.NEUROSHARD_FIXTURES || join(import.meta.dirname, '..', 'fixtures');

/** Names, without extension, of every fixture with the prefix. Throws when there is none: an empty run proves nothing. */
export function fixtureNames(prefix: string): string[] {
  const names = readdirSync(fixturesFolder)
    .filter((file) => file.startsWith(prefix) && file.endsWith('.json'))
    .map((file) => file.slice(0, -'.json'.length))
    .sort();
  if (names.length === 0) throw new Error(`no ${prefix}* fixture in ${fixturesFolder}`);
  return names;
}

export function fixtureJson(name: string): unknown {
  return JSON.parse(readFileSync(join(fixturesFolder, `${name}.json`), 'utf8'));
}

export interface FixtureTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

export function fixtureTensors(name: string): Map<string, FixtureTensor> {
  const file = readSafetensors(readFileSync(join(fixturesFolder, `${name}.safetensors`)));
  if (!file.ok) throw new Error(`${name}: ${file.code} ${file.detail}`);
  const tensors = new Map<string, FixtureTensor>();
  for (const { name: tensor, dtype, shape, bytes } of file.value.tensors.values()) {
    if (dtype === 'I32' || dtype === 'I64') {
      const copy = new Uint8Array(bytes).buffer;
      const data = dtype === 'I32' ? new Int32Array(copy) : Int32Array.from(new BigInt64Array(copy), Number);
      tensors.set(tensor, { shape, data });
      continue;
    }
    const values = decodeF32(dtype, bytes);
    if (!values.ok) throw new Error(`${name}: ${tensor}: ${values.code}`);
    tensors.set(tensor, { shape, data: values.value });
  }
  return tensors;
}

/** ‖a − b‖ / ‖b‖ in f64. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length)
    throw new Error(`${actual.length} elements against ${expected.length}`);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}
