/** The check that int8 and int4 share: a scale that is zero or an ordinary number, and codes that fill its range. */
import { type Rejection, reject } from '../../std/outcome.ts';
import { scaleAt } from './codec.ts';

const normalMin = 2 ** -126;

/** `fills(limit)`: whether the largest code is exactly `limit`, as it is in every block that was really scaled. */
export function checkScaledBlock(
  block: Uint8Array,
  limit: number,
  fills: (limit: number) => boolean,
): Rejection | undefined {
  const scale = scaleAt(block);
  if (scale === 0) {
    for (const byte of block) if (byte !== 0) return reject('not-canonical', 'codes under a zero scale');
    return undefined;
  }
  // Written so that NaN fails too.
  if (!(scale >= normalMin)) return reject('bad-scale', `${scale}`);
  if (!Number.isFinite(Math.fround(scale * limit))) return reject('bad-scale', 'values beyond f32');
  return fills(limit) ? undefined : reject('not-canonical', `largest code is not ${limit}`);
}
