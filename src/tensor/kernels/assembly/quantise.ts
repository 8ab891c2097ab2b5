// Blockwise int8 and int4: blocks of 256 elements, each an f32 scale (absmax / 127 or / 7) and its codes, rounded
// half to even. A scale below the smallest normal number is written as zero, with zero codes: so the largest code
// of any other block is exactly 127 or 7, and encoded bytes are canonical.

const BLOCK: usize = 256;
const NORMAL_MIN: f32 = 1.1754943508222875e-38;

function absMax(x: usize, length: usize): f32 {
  let most = f32x4.splat(0);
  const vectorEnd = x + ((length & ~3) << 2);
  const end = x + (length << 2);
  while (x < vectorEnd) {
    most = f32x4.pmax(most, f32x4.abs(v128.load(x)));
    x += 16;
  }
  let result = max(
    max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
    max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
  );
  while (x < end) {
    result = max(result, abs(load<f32>(x)));
    x += 4;
  }
  return result;
}

// @ts-ignore: decorator
@inline
function codes4(x: usize, scales: v128): v128 {
  return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.div(v128.load(x), scales)));
}

export function quantiseInt8(out: usize, x: usize, length: usize): void {
  while (length > 0) {
    const size = min(BLOCK, length);
    let scale = absMax(x, size) / 127;
    if (scale < NORMAL_MIN) {
      memory.fill(out, 0, size + 4);
    } else {
      store<f32>(out, scale);
      const scales = f32x4.splat(scale);
      let i: usize = 0;
      for (; i + 16 <= size; i += 16) {
        const at = x + (i << 2);
        v128.store(out + 4 + i, i8x16.narrow_i16x8_s(
          i16x8.narrow_i32x4_s(codes4(at, scales), codes4(at + 16, scales)),
          i16x8.narrow_i32x4_s(codes4(at + 32, scales), codes4(at + 48, scales)),
        ));
      }
      for (; i < size; i++) store<i8>(out + 4 + i, <i8>nearest<f32>(load<f32>(x + (i << 2)) / scale));
    }
    out += size + 4;
    x += size << 2;
    length -= size;
  }
}

// @ts-ignore: decorator
@inline
function spread(out: usize, codes: v128, scales: v128): void {
  v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes)), scales));
  v128.store(out + 16, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes)), scales));
}

export function dequantiseInt8(out: usize, bytes: usize, length: usize): void {
  while (length > 0) {
    const size = min(BLOCK, length);
    const scale = load<f32>(bytes);
    const scales = f32x4.splat(scale);
    let i: usize = 0;
    for (; i + 8 <= size; i += 8) spread(out + (i << 2), v128.load8x8_s(bytes + 4 + i), scales);
    for (; i < size; i++) store<f32>(out + (i << 2), <f32>load<i8>(bytes + 4 + i) * scale);
    bytes += size + 4;
    out += size << 2;
    length -= size;
  }
}

// @ts-ignore: decorator
@inline
function code(x: usize, scale: f32): i32 {
  return <i32>nearest<f32>(load<f32>(x) / scale) & 15;
}

/** Two's complement nibbles, the even element low; the last nibble of an odd block is zero. */
export function quantiseInt4(out: usize, x: usize, length: usize): void {
  while (length > 0) {
    const size = min(BLOCK, length);
    const bytes = (size + 1) >> 1;
    let scale = absMax(x, size) / 7;
    if (scale < NORMAL_MIN) {
      memory.fill(out, 0, bytes + 4);
    } else {
      store<f32>(out, scale);
      for (let i: usize = 0; i < bytes; i++) {
        const at = x + (i << 3);
        const top = (i << 1) + 1 < size ? code(at + 4, scale) : 0;
        store<u8>(out + 4 + i, <u8>(code(at, scale) | (top << 4)));
      }
    }
    out += bytes + 4;
    x += size << 2;
    length -= size;
  }
}

// @ts-ignore: decorator
@inline
function nibble(value: i32): i32 {
  return (value << 28) >> 28;
}

export function dequantiseInt4(out: usize, bytes: usize, length: usize): void {
  while (length > 0) {
    const size = min(BLOCK, length);
    const scale = load<f32>(bytes);
    const scales = f32x4.splat(scale);
    let i: usize = 0;
    for (; i + 16 <= size; i += 16) {
      const packed = v128.load64_zero(bytes + 4 + (i >> 1));
      const low = i8x16.shr_s(i8x16.shl(packed, 4), 4);
      const top = i8x16.shr_s(packed, 4);
      const codes = v128.shuffle<i8>(low, top, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      spread(out + (i << 2), i16x8.extend_low_i8x16_s(codes), scales);
      spread(out + (i << 2) + 32, i16x8.extend_high_i8x16_s(codes), scales);
    }
    for (; i < size; i++) {
      const packed = <i32>load<u8>(bytes + 4 + (i >> 1));
      store<f32>(out + (i << 2), <f32>nibble((i & 1) ? packed >> 4 : packed) * scale);
    }
    bytes += ((size + 1) >> 1) + 4;
    out += size << 2;
    length -= size;
  }
}
