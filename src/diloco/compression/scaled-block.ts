/** The check that int8 and int4 share: a scale that is zero or an ordinary number, and codes that fill its range. */
import { type Rejection, reject } from '../../std/outcome.ts';
import { scaleAt } from './codec.ts';

const normalMin = 2 ** -126;

/** Of the block at [from, to). `isFull`: its largest code is exactly `limit`, as after any real scaling. */
export function checkScaledBlock(
  payload: Uint8Array,
  from: number,
  to: number,
  limit: number,
  isFull: (payload: Uint8Array, from: number, to: number) => boolean,
): Rejection | undefined {
  const scale = scaleAt(payload, from);
  if (scale === 0) {
    for (let i = from; i < to; i++)
      if (payload[i] !== 0) return reject('not-canonical', 'codes under a zero scale');
    return undefined;
  }
  // Written so that NaN fails too.
  if (!(scale >= normalMin)) return reject('bad-scale', `${scale}`);
  if (!Number.isFinite(Math.fround(scale * limit))) return reject('bad-scale', 'values beyond f32');
  return isFull(payload, from + 4, to) ? undefined : reject('not-canonical', `largest code is not ${limit}`);
}
