/**
 * What runs graphs. Implementations: the f64 interpreter (the oracle, here), ONNX Runtime native and wasm
 * (in `platform/`). All pass one contract suite. An engine is used from the thread that made it.
 */
import type { Graph, TensorData } from './graph.ts';

export interface Engine {
  /** `interpreter`, `native-cpu`, `native-webgpu`, `native-cuda`, `wasm`: engines of one id agree bit for bit or say not. */
  readonly id: string;
  compile(graph: Graph): Promise<Program>;
  close(): Promise<void>;
}

export interface Program {
  /**
   * Runs once. `feeds` holds every graph input; `fetches` pre-allocated views for every graph output, written in
   * place. Views may lie in WebAssembly memory; they are neither kept nor copied by the caller. A view of the wrong
   * length or kind is refused before anything runs.
   */
  run(feeds: Tensors, fetches: Tensors): Promise<void>;
  release(): Promise<void>;
}

export type Tensors = Readonly<Record<string, TensorData>>;
