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
  /** Whether `run` writes into tensors passed as fetches. The wasm binding takes them and never copies back. */
  readonly writesFetches: boolean;
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
      const inputs = wrapAll(graph.inputs, feeds);
      if (binding.writesFetches) {
        await session.run(inputs, wrapAll(graph.outputs, fetches));
        return;
      }
      const results = await session.run(inputs, [...graph.outputs.keys()], { logSeverityLevel: 4 });
      for (const name of graph.outputs.keys()) {
        const tensor = results[name]!;
        fetches[name]!.set(tensor.data as TensorData);
        tensor.dispose();
      }
    },
    async release() {
      if (forget()) await session.release();
    },
  };
}
