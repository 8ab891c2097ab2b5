import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chatPrompt, leadingTrimmer } from './chat-template.ts';

test('a conversation is one plain text that ends where the answer begins', () => {
  const text = chatPrompt([
    { role: 'system', content: 'Be brief.\n' },
    { role: 'user', content: ' What is a levy? ' },
    { role: 'assistant', content: 'A tax.' },
    { role: 'user', content: 'And a tariff?' },
  ]);
  assert.equal(
    text,
    'Be brief.\n\nUser: What is a levy?\nAssistant: A tax.\nUser: And a tariff?\nAssistant:',
  );
});

test('system and developer texts come first, wherever they stand', () => {
  const text = chatPrompt([
    { role: 'user', content: 'Hello' },
    { role: 'developer', content: 'Answer in verse.' },
    { role: 'system', content: 'Be brief.' },
  ]);
  assert.equal(text, 'Answer in verse.\n\nBe brief.\n\nUser: Hello\nAssistant:');
});

test('only the white space that an answer begins with is dropped', () => {
  const trim = leadingTrimmer();
  assert.deepEqual([' ', '\n', ' We', ' the', ' ', 'people '].map(trim), [
    '',
    '',
    'We',
    ' the',
    ' ',
    'people ',
  ]);
});
