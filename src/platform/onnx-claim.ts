/**
 * Keeps onnxruntime-node and onnxruntime-web apart: they register under one name in a shared registry, and with both
 * loaded a comparison of the two silently compares one with itself. Each engine claims its thread before it starts.
 */
import { AssertionError } from '../std/assert.ts';

const key = Symbol.for('neuroshard.onnxruntime');

/** Throws when the other package was claimed before in this thread. */
export function claimOnnxRuntime(packageName: 'onnxruntime-node' | 'onnxruntime-web'): void {
  const scope = globalThis as { [key]?: string };
  const owner = (scope[key] ??= packageName);
  if (owner !== packageName) throw new AssertionError(`${packageName} in a process that uses ${owner}`);
}
