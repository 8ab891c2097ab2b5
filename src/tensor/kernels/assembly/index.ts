// The one wasm module of the host kernels. SIMD128 only: no relaxed SIMD, no fused multiply-add, so every machine
// gives the same bits. Memory is imported; nothing here allocates or keeps state between calls.

export { adamw } from './adamw';
export { addScaled, outerStep, scale, scatterAddRows, subtract } from './elementwise';
export { dequantiseInt4, dequantiseInt8, quantiseInt4, quantiseInt8 } from './quantise';
export { allFinite, dot, gram } from './reduce';
export { combineRows, orderMean } from './rows';
export { densify, sparsify } from './sparse';
