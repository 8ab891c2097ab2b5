/**
 * Cuts a stream of tokens into shards. Blocks of tokens are dealt in turn to a group of up to 64 shards, so that each
 * shard is a cross-section of the corpus where the corpus has an order (years, authors): nodes then train on alike
 * data, and the held-out shards are like the rest. It knows neither documents nor files.
 */

const groupShards = 64;
const blocksPerShard = 16;
const shardTokensDefault = 65_536;
const shardTokensMin = 1_024;
/** A corpus that is small gets smaller shards rather than fewer than this. */
const shardsWanted = 32;

export class ShardPacker {
  /** Added so far. */
  tokens = 0;
  readonly #wanted: number | undefined;
  readonly #put: (ids: Uint32Array) => Promise<void>;
  #buffer: Uint32Array;
  #length = 0;
  #groups = 0;

  /** `shardTokens`: wanted; undefined chooses by the corpus. `put` gets the shards in their order. */
  constructor(shardTokens: number | undefined, put: (ids: Uint32Array) => Promise<void>) {
    this.#wanted = shardTokens;
    this.#put = put;
    this.#buffer = new Uint32Array(1 << 16);
  }

  async add(ids: ArrayLike<number>): Promise<void> {
    this.tokens += ids.length;
    this.#reserve(this.#length + ids.length);
    this.#buffer.set(ids, this.#length);
    this.#length += ids.length;
    const shardTokens = this.#wanted ?? shardTokensDefault;
    const group = groupShards * shardTokens;
    // Half a shard is kept back, so that what remains for the last group is never a crumb.
    while (this.#length >= group + Math.ceil(shardTokens / 2)) {
      await this.#deal(group, groupShards, shardTokens);
      this.#groups++;
    }
  }

  async end(): Promise<void> {
    const shardTokens =
      this.#wanted ?? (this.#groups > 0 ? shardTokensDefault : shardTokensFor(this.#length));
    const shards = Math.max(1, Math.round(this.#length / shardTokens));
    if (this.#length > 0) await this.#deal(this.#length, shards, shardTokens);
  }

  #reserve(length: number): void {
    if (length <= this.#buffer.length) return;
    const larger = new Uint32Array(Math.max(length, 2 * this.#buffer.length));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
  }

  /** Deals the first `length` tokens of the buffer to `shards` shards, block by block. */
  async #deal(length: number, shards: number, shardTokens: number): Promise<void> {
    const block = Math.max(1, Math.floor(shardTokens / blocksPerShard));
    for (let shard = 0; shard < shards; shard++) {
      const ids: Uint32Array[] = [];
      let count = 0;
      for (let start = shard * block; start < length; start += shards * block) {
        const part = this.#buffer.subarray(start, Math.min(start + block, length));
        ids.push(part);
        count += part.length;
      }
      const joined = new Uint32Array(count);
      let offset = 0;
      for (const part of ids) {
        joined.set(part, offset);
        offset += part.length;
      }
      await this.#put(joined);
    }
    this.#buffer.copyWithin(0, length, this.#length);
    this.#length -= length;
  }
}

/** The largest power of two, within bounds, that still gives the wanted number of shards. */
function shardTokensFor(tokens: number): number {
  let shardTokens = shardTokensMin;
  while (shardTokens < shardTokensDefault && 2 * shardTokens * shardsWanted <= tokens) shardTokens *= 2;
  return shardTokens;
}
