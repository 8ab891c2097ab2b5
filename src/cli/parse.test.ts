import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { byteCount, closest, decimal, integer, oneOf, port } from './parse.ts';

const presets = ['tiny', 'small', 'medium', 'reference'] as const;

test('a choice is taken as it is, and a wrong one is told what is near and what there is', () => {
  const preset = oneOf('preset', presets);
  assert.equal(preset('small'), 'small');
  const message = "unknown preset 'tinny'; did you mean 'tiny'? Choose from: tiny, small, medium, reference";
  assert.throws(() => preset('tinny'), { code: 'unknown-preset', message });
  const noHint = "unknown preset 'gpt-5'. Choose from: tiny, small, medium, reference";
  assert.throws(() => preset('gpt-5'), { code: 'unknown-preset', message: noHint });
});

test('the closest choice is one typing mistake away, in any case of letters', () => {
  for (const [word, expected] of [
    ['tniy', 'tiny'],
    ['Medium', 'medium'],
    ['mediun', 'medium'],
    ['refrence', 'reference'],
    ['x', undefined],
    ['smelly-cheese', undefined],
  ] as const) {
    assert.equal(closest(word, presets), expected, word);
  }
});

test('numbers are taken whole and in range, or refused', () => {
  assert.equal(integer('N', { min: 1, max: 9 })('7'), 7);
  assert.equal(decimal('x')('-2.5e-1'), -0.25);
  assert.equal(port('65535'), 65535);
  for (const text of ['', ' ', '1.5', '1e3', '0x10', 'seven', '7 ']) {
    assert.throws(() => integer('N')(text), { code: 'bad-number' }, text);
  }
  for (const text of ['', ' ', 'NaN', 'Infinity', 'x']) {
    assert.throws(() => decimal('x')(text), { code: 'bad-number' }, text);
  }
  assert.throws(() => integer('N', { min: 1 })('0'), {
    code: 'out-of-range',
    message: 'N is at least 1, not 0',
  });
  assert.throws(() => port('65536'), { code: 'out-of-range' });
  assert.throws(() => integer('N')('99999999999999999999'), { code: 'out-of-range' });
});

test('every safe integer survives', () => {
  fc.assert(fc.property(fc.maxSafeInteger(), (value) => assert.equal(integer('N')(String(value)), value)));
});

test('amounts of memory have units, or are bytes', () => {
  const parse = byteCount('--memory');
  const amounts: [string, number][] = [
    ['4GB', 4e9],
    ['512MiB', 2 ** 29],
    ['1.5 gb', 1.5e9],
    ['1000', 1000],
    ['2tib', 2 ** 41],
  ];
  for (const [text, bytes] of amounts) assert.equal(parse(text), bytes);
  for (const text of ['', 'GB', '4 G', '-1GB', '1e9', '99999999999GB', 'NaN'])
    assert.throws(() => parse(text), { code: 'bad-size' });
  assert.throws(() => parse('0'), { code: 'out-of-range' });
});
