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
  const wrapInputs = wrapper(binding, graph.inputs);
  const wrapOutputs = wrapper(binding, graph.outputs);
  return {
    async run(feeds, fetches) {
      checkTensors(graph, feeds, fetches);
      const inputs = wrapInputs(feeds);
      if (binding.writesFetches) {
        await session.run(inputs, wrapOutputs(fetches));
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

/**
 * Tensors over the caller's views, made once for each view: a graph has dozens, most of them weights that stay the same,
 * and a small run takes no longer than making them. A tensor holds its view and copies nothing, so what the caller writes
 * into a view is seen by the next run.
 */
function wrapper({ Tensor }: OnnxBinding, values: ReadonlyMap<string, Value>) {
  const known = [...values].map(
    ([name, { shape }]) => [name, shape, new WeakMap<TensorData, Tensor>()] as const,
  );
  return (views: Tensors): Record<string, Tensor> => {
    const wrapped: Record<string, Tensor> = {};
    for (const [name, shape, tensors] of known) {
      const view = views[name]!;
      let tensor = tensors.get(view);
      if (!tensor) {
        tensor =
          view instanceof Float32Array
            ? new Tensor('float32', view, shape)
            : new Tensor('int32', view, shape);
        tensors.set(view, tensor);
      }
      wrapped[name] = tensor;
    }
    return wrapped;
  };
}
