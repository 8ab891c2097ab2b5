// Elementwise f32 kernels: each product and each sum is rounded to f32 by itself.

export function subtract(out: usize, a: usize, b: usize, length: usize): void {
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 16) v128.store(out + at, f32x4.sub(v128.load(a + at), v128.load(b + at)));
  for (; at < end; at += 4) store<f32>(out + at, load<f32>(a + at) - load<f32>(b + at));
}

export function addScaled(y: usize, x: usize, s: f32, length: usize): void {
  const factor = f32x4.splat(s);
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 16) {
    v128.store(y + at, f32x4.add(v128.load(y + at), f32x4.mul(v128.load(x + at), factor)));
  }
  for (; at < end; at += 4) store<f32>(y + at, load<f32>(y + at) + load<f32>(x + at) * s);
}

export function scale(x: usize, s: f32, length: usize): void {
  const factor = f32x4.splat(s);
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 16) v128.store(x + at, f32x4.mul(v128.load(x + at), factor));
  for (; at < end; at += 4) store<f32>(x + at, load<f32>(x + at) * s);
}

/** table[ids[i]] += rows[i]; ids were checked by the caller. */
export function scatterAddRows(table: usize, ids: usize, rows: usize, count: usize, width: usize): void {
  for (let i: usize = 0; i < count; i++) {
    const target = table + ((<usize>load<i32>(ids + (i << 2)) * width) << 2);
    addScaled(target, rows + ((i * width) << 2), 1, width);
  }
}

/** v = mu*v + g; w -= eta*(mu*v + g). */
export function outerStep(w: usize, v: usize, g: usize, eta: f32, mu: f32, length: usize): void {
  const etas = f32x4.splat(eta);
  const mus = f32x4.splat(mu);
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 16) {
    const gradient = v128.load(g + at);
    const velocity = f32x4.add(f32x4.mul(mus, v128.load(v + at)), gradient);
    v128.store(v + at, velocity);
    const step = f32x4.mul(etas, f32x4.add(f32x4.mul(mus, velocity), gradient));
    v128.store(w + at, f32x4.sub(v128.load(w + at), step));
  }
  for (; at < end; at += 4) {
    const gradient = load<f32>(g + at);
    const velocity = mu * load<f32>(v + at) + gradient;
    store<f32>(v + at, velocity);
    store<f32>(w + at, load<f32>(w + at) - eta * (mu * velocity + gradient));
  }
}
