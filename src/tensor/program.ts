/**
 * What every engine checks before it runs a program: that feeds and fetches are exactly the graph's inputs and outputs,
 * each of the right length and kind. It knows no engine.
 */
import { AssertionError } from '../std/assert.ts';
import type { Tensors } from './engine.ts';
import { type Graph, sizeOf, type Value } from './graph.ts';

/** Thrown before anything ran: the caller passed views that do not fit the graph. */
export class TensorMismatchError extends AssertionError {
  override name = 'TensorMismatchError';
}

export function checkTensors(graph: Graph, feeds: Tensors, fetches: Tensors): void {
  checkSide('feed', graph.inputs, feeds);
  checkSide('fetch', graph.outputs, fetches);
}

function checkSide(side: string, wanted: ReadonlyMap<string, Value>, given: Tensors): void {
  for (const [name, { dtype, shape }] of wanted) {
    const view = given[name];
    if (!view) throw new TensorMismatchError(`${side} ${name} is missing`);
    const kind = view instanceof Float32Array ? 'f32' : view instanceof Int32Array ? 'i32' : 'unknown';
    if (kind !== dtype) throw new TensorMismatchError(`${side} ${name} is ${kind}, wanted ${dtype}`);
    if (view.length !== sizeOf(shape)) {
      throw new TensorMismatchError(
        `${side} ${name} has ${view.length} elements, wanted ${sizeOf(shape)} for [${shape}]`,
      );
    }
  }
  for (const name of Object.keys(given)) {
    if (!wanted.has(name)) throw new TensorMismatchError(`${side} ${name} is not in the graph`);
  }
}
