/** Randomness of the operating system. */
import { randomBytes } from 'node:crypto';
import type { Random } from '../../std/random.ts';

const batchBytes = 1024;

export function systemRandom(): Random {
  let bytes = Buffer.alloc(0);
  let offset = 0;
  return {
    uint32: () => {
      if (offset === bytes.length) {
        bytes = randomBytes(batchBytes);
        offset = 0;
      }
      offset += 4;
      return bytes.readUInt32LE(offset - 4);
    },
  };
}
