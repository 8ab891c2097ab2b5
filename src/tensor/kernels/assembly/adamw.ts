// AdamW in the order of torch.optim.AdamW (single tensor): decay, moments, update. Every operation is one f32
// rounding. Bias corrections come from the host.

export function adamw(
  w: usize, g: usize, m: usize, v: usize, length: usize,
  gradientScale: f32, decay: f32, oneMinusBeta1: f32, beta2: f32, oneMinusBeta2: f32,
  stepSize: f32, rootCorrection2: f32, epsilon: f32,
): void {
  const scales = f32x4.splat(gradientScale), decays = f32x4.splat(decay), blend1 = f32x4.splat(oneMinusBeta1);
  const keep2 = f32x4.splat(beta2), blend2 = f32x4.splat(oneMinusBeta2), steps = f32x4.splat(stepSize);
  const roots = f32x4.splat(rootCorrection2), epsilons = f32x4.splat(epsilon);
  const vectorEnd = (length & ~3) << 2;
  const end = length << 2;
  let at: usize = 0;
  for (; at < vectorEnd; at += 16) {
    const gradient = f32x4.mul(v128.load(g + at), scales);
    const first = v128.load(m + at);
    const mean = f32x4.add(first, f32x4.mul(blend1, f32x4.sub(gradient, first)));
    v128.store(m + at, mean);
    const square = f32x4.add(
      f32x4.mul(keep2, v128.load(v + at)),
      f32x4.mul(f32x4.mul(blend2, gradient), gradient),
    );
    v128.store(v + at, square);
    const denominator = f32x4.add(f32x4.div(f32x4.sqrt(square), roots), epsilons);
    const update = f32x4.div(f32x4.mul(steps, mean), denominator);
    v128.store(w + at, f32x4.sub(f32x4.mul(v128.load(w + at), decays), update));
  }
  for (; at < end; at += 4) {
    const gradient = load<f32>(g + at) * gradientScale;
    const first = load<f32>(m + at);
    const mean = first + oneMinusBeta1 * (gradient - first);
    store<f32>(m + at, mean);
    const square = beta2 * load<f32>(v + at) + oneMinusBeta2 * gradient * gradient;
    store<f32>(v + at, square);
    const denominator = sqrt<f32>(square) / rootCorrection2 + epsilon;
    store<f32>(w + at, load<f32>(w + at) * decay - (stepSize * mean) / denominator);
  }
}
