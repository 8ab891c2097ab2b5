/** A small dataset in memory for tests: documents of counted words, shards of 512 tokens, every fourth held out. */
import { buildMemoryDataset } from '../src/genesis/build.ts';

export function countedDataset(name: string, documents: number) {
  return buildMemoryDataset({
    name,
    vocabularySize: 260,
    shardTokens: 512,
    heldOutEvery: 4,
    sources: [
      {
        origin: 'test',
        licence: 'CC0-1.0',
        documents: async function* () {
          for (let i = 0; i < documents; i++)
            yield { id: String(i), text: `${(i * 7919) % 1000} and `.repeat(20) };
        },
      },
    ],
  });
}
