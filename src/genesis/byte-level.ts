/**
 * Byte-level pre-tokenisation: text is cut into words, and every byte of a word stands for one printable character,
 * so that any text is covered without an unknown token. It knows nothing of merges.
 * Source: GPT-2 (Radford et al., 2019), as `ByteLevel` in Hugging Face's tokenizers.
 */

/** GPT-2's words: contractions, letters, digits, other characters (each with one leading space), white space. */
const wordPattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The words of a text, in order; joined they are the text. */
export function wordsOf(text: string): string[] {
  return text.match(wordPattern) ?? [];
}

/** The character of each byte: printable Latin-1 stands for itself, the others follow from U+0100. */
export const byteCharacters: readonly string[] = byteAlphabet();

function byteAlphabet(): string[] {
  const characters: string[] = [];
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters.push(String.fromCharCode(printable ? byte : next++));
  }
  return characters;
}

const byteOfCharacter = new Map(byteCharacters.map((character, byte) => [character, byte]));

/** The bytes that a token of the vocabulary stands for; undefined where a character is not of the alphabet. */
export function bytesOfToken(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfCharacter.get(token[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
