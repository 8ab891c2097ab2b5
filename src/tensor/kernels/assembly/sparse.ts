// Top-k with two-bit values: of each chunk of 4096 the 64 elements of largest magnitude (ties: the lower index),
// their places in Elias-Fano form and their values as a sign and one of two levels. A shorter last chunk of L keeps
// k = ceil(L / 64). Bytes of a chunk: lo, hi (bf16, little-endian), 2k bits of buckets (for each bucket of 64
// places as many ones as it keeps, then a zero), 6k bits of places within the bucket, k two-bit codes (bit 0: hi,
// bit 1: negative); each part padded to a byte. Full chunks take 84 bytes.

const CHUNK: usize = 4096;

// Scratch: 2048 u32 of histogram, then 64 u16 indices, 64 f32 sorted magnitudes, 64 f32 values.
const INDICES: usize = 8192;
const SORTED: usize = INDICES + 128;
const VALUES: usize = SORTED + 256;

// @ts-ignore: decorator
@inline
function magnitudeBits(x: usize, i: usize): u32 {
  return load<u32>(x + (i << 2)) & 0x7fffffff;
}

/** From the top bin down: the bin holding the `wanted`-th largest; bins above it are subtracted from `wanted`. */
let remaining: u32 = 0;
function pickBin(histogram: usize, bins: u32, wanted: u32): u32 {
  let bin = bins;
  while (bin > 0) {
    bin--;
    const count = load<u32>(histogram + (<usize>bin << 2));
    if (count >= wanted) break;
    wanted -= count;
  }
  remaining = wanted;
  return bin;
}

// @ts-ignore: decorator
@inline
function bump(histogram: usize, bin: u32): void {
  const at = histogram + (<usize>bin << 2);
  store<u32>(at, load<u32>(at) + 1);
}

/** Bits of the k-th largest magnitude; `remaining` is how many elements equal to it are kept. */
function threshold(x: usize, length: usize, k: u32, histogram: usize): u32 {
  memory.fill(histogram, 0, 8192);
  for (let i: usize = 0; i < length; i++) bump(histogram, magnitudeBits(x, i) >> 20);
  const top = pickBin(histogram, 2048, k);
  memory.fill(histogram, 0, 4096);
  for (let i: usize = 0; i < length; i++) {
    const bits = magnitudeBits(x, i);
    if (bits >> 20 == top) bump(histogram, (bits >> 10) & 1023);
  }
  const prefix = (top << 10) | pickBin(histogram, 1024, remaining);
  memory.fill(histogram, 0, 4096);
  for (let i: usize = 0; i < length; i++) {
    const bits = magnitudeBits(x, i);
    if (bits >> 10 == prefix) bump(histogram, bits & 1023);
  }
  return (prefix << 10) | pickBin(histogram, 1024, remaining);
}

/** Writes the kept indices ascending, with their values and sorted magnitudes. */
function select(x: usize, length: usize, k: u32, scratch: usize): void {
  const least = threshold(x, length, k, scratch);
  let ties = remaining;
  let kept: usize = 0;
  for (let i: usize = 0; i < length; i++) {
    const bits = magnitudeBits(x, i);
    if (bits < least) continue;
    if (bits == least) {
      if (ties == 0) continue;
      ties--;
    }
    store<u16>(scratch + INDICES + (kept << 1), <u16>i);
    store<u32>(scratch + VALUES + (kept << 2), load<u32>(x + (i << 2)));
    let at = kept;
    while (at > 0 && load<u32>(scratch + SORTED + ((at - 1) << 2)) > bits) {
      store<u32>(scratch + SORTED + (at << 2), load<u32>(scratch + SORTED + ((at - 1) << 2)));
      at--;
    }
    store<u32>(scratch + SORTED + (at << 2), bits);
    kept++;
  }
}

/** f32 to bf16, half to even, never to infinity. `x` is not negative. */
function toBf16(x: f32): u32 {
  const bits = reinterpret<u32>(x);
  return min((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, 0x7f7f);
}

// @ts-ignore: decorator
@inline
function setBit(bytes: usize, bit: usize): void {
  const at = bytes + (bit >> 3);
  store<u8>(at, load<u8>(at) | (<u8>1 << <u8>(bit & 7)));
}

let lowLevel: u32 = 0;
let highLevel: u32 = 0;
let splitBits: u32 = 0;

/** The two levels of least squared error over the sorted magnitudes: the best split, found exactly. */
function fitLevels(sorted: usize, k: usize): void {
  let total: f64 = 0;
  for (let i: usize = 0; i < k; i++) total += <f64>load<f32>(sorted + (i << 2));
  let best = (total * total) / <f64>k;
  let below: f64 = 0;
  let low = total / <f64>k;
  let high = low;
  splitBits = 0x7fffffff;
  for (let i: usize = 1; i < k; i++) {
    below += <f64>load<f32>(sorted + ((i - 1) << 2));
    const bits = load<u32>(sorted + (i << 2));
    if (bits == load<u32>(sorted + ((i - 1) << 2))) continue;
    const above = total - below;
    const gain = (below * below) / <f64>i + (above * above) / <f64>(k - i);
    if (gain > best) {
      best = gain;
      low = below / <f64>i;
      high = above / <f64>(k - i);
      splitBits = bits;
    }
  }
  lowLevel = toBf16(<f32>low);
  highLevel = toBf16(<f32>high);
  if (lowLevel == highLevel) splitBits = 0x7fffffff;
}

function encodeChunk(out: usize, x: usize, length: usize, k: usize, scratch: usize): usize {
  select(x, length, <u32>k, scratch);
  fitLevels(scratch + SORTED, k);
  const buckets = out + 4;
  const places = buckets + ((2 * k + 7) >> 3);
  const codes = places + ((6 * k + 7) >> 3);
  const end = codes + ((2 * k + 7) >> 3);
  memory.fill(out, 0, end - out);
  store<u16>(out, <u16>lowLevel);
  store<u16>(out, <u16>highLevel, 2);
  for (let i: usize = 0; i < k; i++) {
    const index = highLevel == 0 ? i : <usize>load<u16>(scratch + INDICES + (i << 1));
    const bits = load<u32>(scratch + VALUES + (i << 2));
    const isHigh = (bits & 0x7fffffff) >= splitBits;
    setBit(buckets, (index >> 6) + i);
    const place = index & 63;
    for (let bit: usize = 0; bit < 6; bit++) if ((place >> bit) & 1) setBit(places, 6 * i + bit);
    if (isHigh) setBit(codes, 2 * i);
    if (reinterpret<f32>(bits) < 0 && (isHigh ? highLevel : lowLevel) != 0) setBit(codes, 2 * i + 1);
  }
  return end;
}

export function sparsify(out: usize, x: usize, length: usize, scratch: usize): void {
  while (length > 0) {
    const size = min(CHUNK, length);
    out = encodeChunk(out, x, size, (size + 63) >> 6, scratch);
    x += size << 2;
    length -= size;
  }
}

/** Two bits of `codes` choose among the four values. */
function decodeChunk(out: usize, bytes: usize, length: usize, k: usize): usize {
  const low = <u32>load<u16>(bytes) << 16;
  const high = <u32>load<u16>(bytes, 2) << 16;
  const buckets = bytes + 4;
  const places = buckets + ((2 * k + 7) >> 3);
  const codes = places + ((6 * k + 7) >> 3);
  memory.fill(out, 0, length << 2);
  let kept: usize = 0;
  for (let bit: usize = 0; bit < 2 * k; bit++) {
    if (((load<u8>(buckets + (bit >> 3)) >> <u8>(bit & 7)) & 1) == 0) continue;
    const first = 6 * kept;
    const at = places + (first >> 3);
    let window = <u32>load<u8>(at);
    if ((first & 7) > 2) window |= <u32>load<u8>(at, 1) << 8;
    const place = <usize>((window >> <u32>(first & 7)) & 63);
    const code = <u32>(load<u8>(codes + (kept >> 2)) >> <u8>((kept & 3) << 1));
    const value = (code & 1 ? high : low) | ((code & 2) << 30);
    store<u32>(out + ((((bit - kept) << 6) + place) << 2), value);
    kept++;
  }
  return codes + ((2 * k + 7) >> 3);
}

export function densify(out: usize, bytes: usize, length: usize): void {
  while (length > 0) {
    const size = min(CHUNK, length);
    bytes = decodeChunk(out, bytes, size, (size + 63) >> 6);
    out += size << 2;
    length -= size;
  }
}
