/**
 * Tokenizer on the shipped corpus, one core: training, encoding (beside Hugging Face's JavaScript library on the first
 * megabyte), decoding, and the sampler's cost of one batch.
 * Run: node bench/tokenizer.ts [vocabulary]
 */
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { tokenizerJsonOf, trainBpe, WordCounter } from '../src/genesis/bpe-trainer.ts';
import { readDocuments } from '../src/genesis/readers/documents.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { loadTokenizer } from '../src/genesis/tokenizer.ts';
import { fileSource } from '../src/platform/nodejs/byte-sources.ts';
import { loadDataset } from '../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../src/platform/nodejs/installation.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';

installNodeSha256();
const vocabularySize = Number(process.argv[2] ?? 2048);

const texts: string[] = [];
for await (const { text } of readDocuments(fileSource(packageFile('data', 'state-of-the-union.jsonl.gz')))) {
  texts.push(text);
}
const characters = texts.reduce((sum, text) => sum + text.length, 0);

function seconds(body: () => void): number {
  const start = performance.now();
  body();
  return (performance.now() - start) / 1000;
}

const counter = new WordCounter();
const counting = seconds(() => {
  for (const text of texts) counter.add(text);
});
let json = new Uint8Array();
const training = seconds(() => {
  json = new Uint8Array(tokenizerJsonOf(trainBpe(counter.counts, vocabularySize)));
});
console.log(`${characters} characters, ${counter.counts.size} words, vocabulary ${vocabularySize}`);
console.log(
  `train           ${(counting + training).toFixed(2)} s (counting words ${counting.toFixed(2)} s)`,
);

const tokenizer = loadTokenizer(json);
const encoded: number[][] = [];
const encoding = seconds(() => {
  for (const text of texts) encoded.push(tokenizer.encode(text));
});
const tokens = encoded.reduce((sum, ids) => sum + ids.length, 0);
const decoding = seconds(() => {
  for (const ids of encoded) tokenizer.decode(ids);
});
const rate = (count: number, time: number) => `${(count / time / 1e6).toFixed(2)} M tokens/s`;
console.log(`encode          ${encoding.toFixed(2)} s, ${tokens} tokens, ${rate(tokens, encoding)}`);
console.log(`decode          ${decoding.toFixed(2)} s, ${rate(tokens, decoding)}`);

const library = new HuggingFaceTokenizer(JSON.parse(new TextDecoder().decode(json)), {});
const part = texts.join('\n').slice(0, 1_000_000);
let partTokens = 0;
const libraryTime = seconds(() => {
  partTokens = library.encode(part, { add_special_tokens: false }).ids.length;
});
const ownTime = seconds(() => void loadTokenizer(json).encode(part));
console.log(`encode 1 MB     ours ${rate(partTokens, ownTime)}, library ${rate(partTokens, libraryTime)}`);

const dataset = await loadDataset(packageFile('data', 'state-of-the-union'));
const batches = 2000;
const start = performance.now();
for (let round = 0; round < batches; round++) {
  await batchOf({ dataset, nodeId: 'bench', round, step: 0, batch: 8, sequence: 128, innerSteps: 20 });
}
console.log(`batch 8 x 128   ${((performance.now() - start) / batches).toFixed(3)} ms`);
