/**
 * An `Engine` over any ONNX Runtime binding: native in Node, wasm in Node and browsers. The binding is handed in,
 * because the two packages share one registry and must never be loaded in the same process.
 */
import type { InferenceSession, InferenceSessionFactory, Tensor, TensorConstructor } from 'onnxruntime-node';
import type { Engine, Program, Tensors } from '../tensor/engine.ts';
import type { Graph, TensorData, Value } from '../tensor/graph.ts';
import { lower } from '../tensor/onnx/lower.ts';
import { encodeModel } from '../tensor/onnx/model.ts';
import { checkTensors } from '../tensor/program.ts';
import { verify } from '../tensor/verify.ts';

export interface OnnxBinding {
  readonly InferenceSession: InferenceSessionFactory;
  readonly Tensor: TensorConstructor;
}

export function createOnnxEngine(
  id: string,
  binding: OnnxBinding,
  options: InferenceSession.SessionOptions,
): Engine {
  const sessions = new Set<InferenceSession>();
  return {
    id,
    async compile(graph) {
      const verified = verify(graph);
      const session = await binding.InferenceSession.create(encodeModel(lower(verified)), options);
      sessions.add(session);
      return program(binding, verified, session, () => sessions.delete(session));
    },
    async close() {
      for (const session of sessions) await session.release();
      sessions.clear();
    },
  };
}

function program(
  binding: OnnxBinding,
  graph: Graph,
  session: InferenceSession,
  forget: () => boolean,
): Program {
  const wrap = (view: TensorData, { shape }: Value): Tensor =>
    view instanceof Float32Array
      ? new binding.Tensor('float32', view, shape)
      : new binding.Tensor('int32', view, shape);
  const wrapAll = (values: ReadonlyMap<string, Value>, views: Tensors) =>
    Object.fromEntries([...values].map(([name, value]) => [name, wrap(views[name]!, value)]));
  return {
    async run(feeds, fetches) {
      checkTensors(graph, feeds, fetches);
      const results = await session.run(wrapAll(graph.inputs, feeds), wrapAll(graph.outputs, fetches));
      // The native binding writes the views in place; the wasm one may hand back tensors of its own.
      for (const name of graph.outputs.keys()) copyInto(fetches[name]!, results[name]!.data);
    },
    async release() {
      if (forget()) await session.release();
    },
  };
}

function copyInto(view: TensorData, data: Tensor.DataType): void {
  if (data === view) return;
  const source = data as TensorData;
  if (source.buffer === view.buffer && source.byteOffset === view.byteOffset) return;
  view.set(source);
}
