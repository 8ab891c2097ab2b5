// Kernels over up to 17 rows of equal length: weighted sums and order statistics. `rows` points to n u32 addresses.

// @ts-ignore: decorator
@inline
function low(x: v128): v128 {
  return f64x2.promote_low_f32x4(x);
}

// @ts-ignore: decorator
@inline
function high(x: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
}

// @ts-ignore: decorator
@inline
function demote(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(f32x4.demote_f64x2_zero(a), f32x4.demote_f64x2_zero(b), 0, 1, 4, 5);
}

// @ts-ignore: decorator
@inline
function row(rows: usize, i: usize): usize {
  return <usize>load<u32>(rows + (i << 2));
}

/** out = f32(sum over i of coefficients[i] * row i), the sum in f64 from +0 in row order. */
export function combineRows(out: usize, rows: usize, coefficients: usize, n: usize, length: usize): void {
  const vectorEnd = (length & ~7) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 32) {
    let s0 = f64x2.splat(0), s1 = f64x2.splat(0), s2 = f64x2.splat(0), s3 = f64x2.splat(0);
    for (let i: usize = 0; i < n; i++) {
      const c = v128.load64_splat(coefficients + (i << 3));
      const source = row(rows, i) + at;
      const x = v128.load(source);
      const y = v128.load(source, 16);
      s0 = f64x2.add(s0, f64x2.mul(c, low(x)));
      s1 = f64x2.add(s1, f64x2.mul(c, high(x)));
      s2 = f64x2.add(s2, f64x2.mul(c, low(y)));
      s3 = f64x2.add(s3, f64x2.mul(c, high(y)));
    }
    v128.store(out + at, demote(s0, s1));
    v128.store(out + at, demote(s2, s3), 16);
  }
  for (; at < end; at += 4) {
    let sum: f64 = 0;
    for (let i: usize = 0; i < n; i++) {
      sum += load<f64>(coefficients + (i << 3)) * <f64>load<f32>(row(rows, i) + at);
    }
    store<f32>(out + at, <f32>sum);
  }
}

/** Columns sorted at a time: n rows of them stay in the first-level cache. */
const STRIP: usize = 64;
const STRIP_BYTES: usize = 256;

// @ts-ignore: decorator
@inline
function compareExchange(a: usize, b: usize): void {
  for (let at: usize = 0; at < STRIP_BYTES; at += 32) {
    const x0 = v128.load(a + at), y0 = v128.load(b + at);
    const x1 = v128.load(a + at, 16), y1 = v128.load(b + at, 16);
    v128.store(a + at, f32x4.pmin(x0, y0));
    v128.store(b + at, f32x4.pmax(y0, x0));
    v128.store(a + at, f32x4.pmin(x1, y1), 16);
    v128.store(b + at, f32x4.pmax(y1, x1), 16);
  }
}

/**
 * For each column: sorts the n values f32(scales[i] * row i) and writes f32((sum of ranks from..to-1) / (to - from)),
 * the sum in f64 from +0 in ascending order. `network` holds comparators as pairs of bytes (lower, higher row);
 * `scratch` n * 256 bytes. Nothing may be NaN.
 */
export function orderMean(
  out: usize, rows: usize, scales: usize, n: usize, length: usize,
  network: usize, comparators: usize, from: usize, to: usize, scratch: usize,
): void {
  const count = f64x2.splat(<f64>(to - from));
  for (let start: usize = 0; start < length; start += STRIP) {
    const width = min(STRIP, length - start);
    for (let i: usize = 0; i < n; i++) {
      const source = row(rows, i) + (start << 2);
      const target = scratch + i * STRIP_BYTES;
      const s = load<f32>(scales + (i << 2));
      if (width == STRIP) {
        const factor = f32x4.splat(s);
        for (let at: usize = 0; at < STRIP_BYTES; at += 16) {
          v128.store(target + at, f32x4.mul(v128.load(source + at), factor));
        }
      } else {
        for (let at: usize = 0; at < width << 2; at += 4) store<f32>(target + at, load<f32>(source + at) * s);
        for (let at: usize = width << 2; at < STRIP_BYTES; at += 4) store<f32>(target + at, 0);
      }
    }
    for (let c: usize = 0; c < comparators; c++) {
      const a = <usize>load<u8>(network + (c << 1));
      const b = <usize>load<u8>(network + (c << 1), 1);
      compareExchange(scratch + a * STRIP_BYTES, scratch + b * STRIP_BYTES);
    }
    for (let at: usize = 0; at < STRIP_BYTES; at += 16) {
      let s0 = f64x2.splat(0), s1 = f64x2.splat(0);
      for (let i = from; i < to; i++) {
        const x = v128.load(scratch + i * STRIP_BYTES + at);
        s0 = f64x2.add(s0, low(x));
        s1 = f64x2.add(s1, high(x));
      }
      // The sorted strip is used up: its row 0 takes the result.
      v128.store(scratch + at, demote(f64x2.div(s0, count), f64x2.div(s1, count)));
    }
    memory.copy(out + (start << 2), scratch, width << 2);
  }
}
