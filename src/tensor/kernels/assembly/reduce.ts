// Reductions in f64. Their order is protocol: a dot product is cut in blocks of 4096 elements; inside a block
// element i adds to lane i mod 4 (the last 1-3 elements of a block one by one after the lanes are combined), and
// block sums add to the carry in order. So a reduction over consecutive ranges that begin at multiples of 4096
// gives the same bits as one over the whole. No fused multiply-add anywhere.

export const BLOCK: usize = 4096;

// @ts-ignore: decorator
@inline
function high(x: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
}

// @ts-ignore: decorator
@inline
function combine(low: v128, top: v128): f64 {
  const sum = f64x2.add(low, top);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

/** Dot product of one block of at most 4096 elements. */
function blockDot(a: usize, b: usize, length: usize): f64 {
  let low = f64x2.splat(0);
  let top = f64x2.splat(0);
  const vectorEnd = a + ((length & ~3) << 2);
  const end = a + (length << 2);
  while (a < vectorEnd) {
    const x = v128.load(a);
    const y = v128.load(b);
    low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(x), f64x2.promote_low_f32x4(y)));
    top = f64x2.add(top, f64x2.mul(high(x), high(y)));
    a += 16;
    b += 16;
  }
  let sum = combine(low, top);
  while (a < end) {
    sum += <f64>load<f32>(a) * <f64>load<f32>(b);
    a += 4;
    b += 4;
  }
  return sum;
}

export function dot(a: usize, b: usize, length: usize, carry: f64): f64 {
  while (length > BLOCK) {
    carry += blockDot(a, b, BLOCK);
    a += BLOCK << 2;
    b += BLOCK << 2;
    length -= BLOCK;
  }
  if (length > 0) carry += blockDot(a, b, length);
  return carry;
}

/** 1 if no element is NaN or infinite. */
export function allFinite(x: usize, length: usize): bool {
  const mask = i32x4.splat(0x7f800000);
  let bad = i32x4.splat(0);
  const vectorEnd = x + ((length & ~3) << 2);
  const end = x + (length << 2);
  while (x < vectorEnd) {
    bad = v128.or(bad, i32x4.eq(v128.and(v128.load(x), mask), mask));
    x += 16;
  }
  let fine = !v128.any_true(bad);
  while (x < end) {
    fine = fine && (load<u32>(x) & 0x7f800000) != 0x7f800000;
    x += 4;
  }
  return fine;
}

/** One block of a 2 x 2 tile of the Gram matrix: four dot products that share their loads. */
function tile(i0: usize, i1: usize, j0: usize, j1: usize, length: usize, out: usize): void {
  let low00 = f64x2.splat(0), top00 = f64x2.splat(0), low01 = f64x2.splat(0), top01 = f64x2.splat(0);
  let low10 = f64x2.splat(0), top10 = f64x2.splat(0), low11 = f64x2.splat(0), top11 = f64x2.splat(0);
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  while (at < vectorEnd) {
    const a0 = v128.load(i0 + at), a1 = v128.load(i1 + at), b0 = v128.load(j0 + at), b1 = v128.load(j1 + at);
    let p0 = f64x2.promote_low_f32x4(a0), p1 = f64x2.promote_low_f32x4(a1);
    let q0 = f64x2.promote_low_f32x4(b0), q1 = f64x2.promote_low_f32x4(b1);
    low00 = f64x2.add(low00, f64x2.mul(p0, q0));
    low01 = f64x2.add(low01, f64x2.mul(p0, q1));
    low10 = f64x2.add(low10, f64x2.mul(p1, q0));
    low11 = f64x2.add(low11, f64x2.mul(p1, q1));
    p0 = high(a0);
    p1 = high(a1);
    q0 = high(b0);
    q1 = high(b1);
    top00 = f64x2.add(top00, f64x2.mul(p0, q0));
    top01 = f64x2.add(top01, f64x2.mul(p0, q1));
    top10 = f64x2.add(top10, f64x2.mul(p1, q0));
    top11 = f64x2.add(top11, f64x2.mul(p1, q1));
    at += 16;
  }
  let s00 = combine(low00, top00), s01 = combine(low01, top01);
  let s10 = combine(low10, top10), s11 = combine(low11, top11);
  while (at < end) {
    const x0 = <f64>load<f32>(i0 + at), x1 = <f64>load<f32>(i1 + at);
    const y0 = <f64>load<f32>(j0 + at), y1 = <f64>load<f32>(j1 + at);
    s00 += x0 * y0;
    s01 += x0 * y1;
    s10 += x1 * y0;
    s11 += x1 * y1;
    at += 4;
  }
  store<f64>(out, s00, 0);
  store<f64>(out, s01, 8);
  store<f64>(out, s10, 16);
  store<f64>(out, s11, 24);
}

// @ts-ignore: decorator
@inline
function addTo(sums: usize, index: usize, value: f64): void {
  store<f64>(sums + (index << 3), load<f64>(sums + (index << 3)) + value);
}

/**
 * sums[i*n + j] += row i . row j for i <= j. `rows` points to n u32 addresses, `sums` to n*n f64, `scratch` to
 * 32 bytes.
 */
export function gram(rows: usize, n: usize, length: usize, sums: usize, scratch: usize): void {
  let offset: usize = 0;
  while (offset < length) {
    const size = min(BLOCK, length - offset);
    for (let i: usize = 0; i < n; i += 2) {
      const i1 = min(i + 1, n - 1);
      const rowI0 = <usize>load<u32>(rows + (i << 2)) + (offset << 2);
      const rowI1 = <usize>load<u32>(rows + (i1 << 2)) + (offset << 2);
      for (let j: usize = i; j < n; j += 2) {
        const j1 = min(j + 1, n - 1);
        const rowJ0 = <usize>load<u32>(rows + (j << 2)) + (offset << 2);
        const rowJ1 = <usize>load<u32>(rows + (j1 << 2)) + (offset << 2);
        tile(rowI0, rowI1, rowJ0, rowJ1, size, scratch);
        addTo(sums, i * n + j, load<f64>(scratch, 0));
        if (j1 > j) addTo(sums, i * n + j1, load<f64>(scratch, 8));
        if (i1 > i && j > i) addTo(sums, i1 * n + j, load<f64>(scratch, 16));
        if (i1 > i && j1 > j) addTo(sums, i1 * n + j1, load<f64>(scratch, 24));
      }
    }
    offset += size;
  }
}
