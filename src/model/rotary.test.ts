import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytesOf } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { rotaryTables } from './rotary.ts';

test('tables are the same bits on every machine', () => {
  const { cosine, sine } = rotaryTables(1024, 64, 10_000);
  assert.equal(
    sha256Hex(bytesOf(cosine)),
    '9d1a22fb264f499f5908acd10c2dc0d639c4c8b8b6bf0fd96128ef880b4a99c8',
  );
  assert.equal(sha256Hex(bytesOf(sine)), 'abca3244619033a374a2360fb341926d257cd794aed17a5a8bbe1b8f8bf706af');
});

test('angles follow position / theta^(2i / headWidth)', () => {
  const headWidth = 12;
  const { cosine, sine } = rotaryTables(50, headWidth, 500_000);
  for (let position = 0; position < 50; position++) {
    for (let i = 0; i < headWidth / 2; i++) {
      const angle = position / 500_000 ** ((2 * i) / headWidth);
      assert(Math.abs(cosine[(position * headWidth) / 2 + i]! - Math.cos(angle)) < 1e-5);
      assert(Math.abs(sine[(position * headWidth) / 2 + i]! - Math.sin(angle)) < 1e-5);
    }
  }
});
