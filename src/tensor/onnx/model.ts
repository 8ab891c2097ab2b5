/**
 * An ONNX model as plain data, and its protobuf bytes. It knows the ONNX schema (onnx.proto3) and nothing of our
 * own graph. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
 */
import { bytesOf } from '../../std/bytes.ts';
import type { DType, Shape, TensorData } from '../graph.ts';
import { MessageWriter } from './protobuf.ts';

/** Integers and floats are different kinds of attribute: a float is wrapped. */
export type Attribute = number | string | readonly number[] | { readonly float: number };

export interface OnnxNode {
  readonly opType: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface OnnxInitializer {
  readonly name: string;
  readonly shape: Shape;
  readonly data: TensorData | BigInt64Array;
}

export interface OnnxTensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface OnnxModel {
  readonly nodes: readonly OnnxNode[];
  readonly initializers: readonly OnnxInitializer[];
  readonly inputs: readonly OnnxTensorInfo[];
  readonly outputs: readonly OnnxTensorInfo[];
}

const irVersion = 9;
const opset = 18;
const elementType = { f32: 1, i32: 6, i64: 7 } as const;
const attributeType = { float: 1, int: 2, string: 3, ints: 7 } as const;

function attributeMessage(name: string, value: Attribute): MessageWriter {
  const message = new MessageWriter().string(1, name);
  if (typeof value === 'number') return message.int(3, value).int(20, attributeType.int);
  if (typeof value === 'string') return message.string(4, value).int(20, attributeType.string);
  if ('float' in value) return message.float(2, value.float).int(20, attributeType.float);
  for (const element of value) message.int(8, element);
  return message.int(20, attributeType.ints);
}

function nodeMessage(node: OnnxNode): MessageWriter {
  const message = new MessageWriter();
  for (const input of node.inputs) message.string(1, input);
  for (const output of node.outputs) message.string(2, output);
  message.string(3, `${node.outputs[0]}_${node.opType}`).string(4, node.opType);
  for (const [name, value] of Object.entries(node.attributes))
    message.message(5, attributeMessage(name, value));
  if (node.domain) message.string(7, node.domain);
  return message;
}

function initializerMessage({ name, shape, data }: OnnxInitializer): MessageWriter {
  const message = new MessageWriter();
  for (const length of shape) message.int(1, length);
  const kind = data instanceof Float32Array ? 'f32' : data instanceof Int32Array ? 'i32' : 'i64';
  return message.int(2, elementType[kind]).string(8, name).bytes(9, bytesOf(data));
}

function tensorInfoMessage({ name, dtype, shape }: OnnxTensorInfo): MessageWriter {
  const dimensions = new MessageWriter();
  for (const length of shape) dimensions.message(1, new MessageWriter().int(1, length));
  const tensor = new MessageWriter().int(1, elementType[dtype]).message(2, dimensions);
  return new MessageWriter().string(1, name).message(2, new MessageWriter().message(1, tensor));
}

/** The serialized ModelProto. */
export function encodeModel(model: OnnxModel): Uint8Array {
  const graph = new MessageWriter();
  for (const node of model.nodes) graph.message(1, nodeMessage(node));
  graph.string(2, 'neuroshard');
  for (const initializer of model.initializers) graph.message(5, initializerMessage(initializer));
  for (const input of model.inputs) graph.message(11, tensorInfoMessage(input));
  for (const output of model.outputs) graph.message(12, tensorInfoMessage(output));
  const opsets: [string, number][] = [
    ['', opset],
    ['com.microsoft', 1],
  ];
  const message = new MessageWriter().int(1, irVersion).string(2, 'neuroshard').message(7, graph);
  for (const [domain, version] of opsets) {
    message.message(8, new MessageWriter().string(1, domain).int(2, version));
  }
  return message.finish();
}
