import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPassphrase, passphraseFor, type SecretTerminal } from './passphrase.ts';

/** Types each line when it is asked for the next. */
function typing(...lines: readonly string[]) {
  const left = lines.map((line) => Buffer.from(line));
  const listeners = new Set<(data: Uint8Array) => void>();
  const raw: boolean[] = [];
  let shown = '';
  const terminal: SecretTerminal = {
    isTTY: true,
    setRawMode: (on) => raw.push(on),
    on: (_event, listener) => listeners.add(listener),
    off: (_event, listener) => listeners.delete(listener),
    resume: () => {
      const line = left.shift() ?? assert.fail('asked too often');
      // Byte by byte: letters of several bytes arrive in parts.
      setImmediate(() => {
        for (const byte of line) for (const listener of listeners) listener(new Uint8Array([byte]));
      });
    },
    pause: () => undefined,
  };
  const options = { terminal, environment: {}, write: (text: string) => void (shown += text) };
  return { options, raw, listeners, shown: () => shown };
}

test('what is typed is read and not shown', async () => {
  const { options, raw, listeners, shown } = typing('gehéim\x7f\x7fim\x1b\r');
  assert.equal(await passphraseFor('my.key', options), 'gehéim');
  assert.equal(shown(), 'Passphrase of my.key: \n');
  assert.deepEqual(raw, [true, false]);
  assert.equal(listeners.size, 0);
});

test('a new one is asked for twice', async () => {
  assert.equal(await newPassphrase('k', typing('same\r', 'same\n').options), 'same');
  await assert.rejects(newPassphrase('k', typing('one\r', 'two\r').options), { code: 'passphrases-differ' });
});

test('Ctrl-C ends the question, and the terminal is as before', async () => {
  const { options, raw } = typing('abc\x03');
  await assert.rejects(passphraseFor('k', options), { code: 'interrupted' });
  assert.deepEqual(raw, [true, false]);
});

test('the environment goes first, and without a terminal nobody is asked', async () => {
  const environment = { NEUROSHARD_PASSPHRASE: 'given' };
  assert.equal(await newPassphrase('k', { environment }), 'given');
  const terminal = { ...typing().options.terminal, isTTY: false };
  await assert.rejects(passphraseFor('k', { environment: {}, terminal }), { code: 'passphrase-needed' });
});
