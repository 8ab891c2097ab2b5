/**
 * What travels between the stages of a pipeline: requests and answers as a small canonical header and a body of raw
 * rows. Decoding checks everything that follows from the bytes alone; shapes are given by whoever knows the model.
 */
import { z } from 'zod';
import { bytesOf, concatBytes } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { decodeRows, type RowCodec, rowBytes } from './row-codec.ts';
import {
  counterSchema,
  indexSchema,
  microbatchesMax,
  normSchema,
  type Seal,
  sealForm,
  sealSchema,
  segmentsMax,
  sumsSchema,
} from './seals.ts';

const headerBytesMax = 4096;
const bytes = (most: number) => z.instanceof(Uint8Array).refine((value) => value.length <= most);

/** What both ends know of a stage boundary. */
export interface BoundaryShape {
  /** Tokens of a microbatch. */
  readonly tokens: number;
  readonly width: number;
  readonly vocabulary: number;
  readonly codec: RowCodec;
}

/** Where in the network's training a message belongs. */
export interface StepPlace {
  readonly round: number;
  /** Stage of the callee. */
  readonly stage: number;
  readonly step: number;
}

export interface TrainRequest extends StepPlace {
  /** Number of the microbatch within the step. */
  readonly index: number;
  /** The Driver's signed claim, as it came. */
  readonly claim: Uint8Array;
  readonly labels: Int32Array;
  readonly rows: Uint8Array;
}

/** [u32 length of the header][header][body…]: the body is not copied when decoded. */
function frame(header: Canonical, ...body: readonly Uint8Array[]): Uint8Array {
  const head = encodeCanonical(header);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, head.length, true);
  return concatBytes(length, head, ...body);
}

function unframe(message: Uint8Array): Outcome<{ readonly header: unknown; readonly body: Uint8Array }> {
  if (message.length < 4) return reject('malformed');
  const length = new DataView(message.buffer, message.byteOffset).getUint32(0, true);
  if (length > headerBytesMax || 4 + length > message.length) return reject('malformed');
  const header = decodeCanonical(message.subarray(4, 4 + length), headerBytesMax);
  return header.ok ? accept({ header: header.value, body: message.subarray(4 + length) }) : header;
}

const trainHeader = z.tuple([counterSchema, counterSchema, counterSchema, counterSchema, bytes(512)]);

/** `rows` are encoded by the boundary's codec already, so that sending them again costs nothing. */
export function encodeTrainRequest(request: TrainRequest, shape: BoundaryShape): Uint8Array {
  const { round, stage, step, index, claim, labels, rows } = request;
  return frame([round, stage, step, index, claim], encodeLabels(labels, shape), rows);
}

/** `malformed`, `wrong-length`, or `bad-label` for one outside the vocabulary. */
export function decodeTrainRequest(message: Uint8Array, shape: BoundaryShape): Outcome<TrainRequest> {
  const parts = unframe(message);
  if (!parts.ok) return parts;
  const parsed = trainHeader.safeParse(parts.value.header);
  if (!parsed.success) return reject('malformed');
  const body = labelledRows(parts.value.body, shape);
  if (!body.ok) return body;
  const [round, stage, step, index, claim] = parsed.data;
  return accept({ round, stage, step, index, claim, ...body.value });
}

interface LabelledRows {
  readonly labels: Int32Array;
  readonly rows: Uint8Array;
}

/** Two bytes each, little-endian, where all of the vocabulary fits into them; else four. */
function isNarrow({ vocabulary }: BoundaryShape): boolean {
  return vocabulary <= 0x1_0000;
}

function encodeLabels(labels: Int32Array, shape: BoundaryShape): Uint8Array {
  return bytesOf(isNarrow(shape) ? Uint16Array.from(labels) : labels);
}

function labelledRows(body: Uint8Array, shape: BoundaryShape): Outcome<LabelledRows> {
  const { tokens, width, vocabulary, codec } = shape;
  const labelBytes = (isNarrow(shape) ? 2 : 4) * tokens;
  if (body.length !== labelBytes + rowBytes(codec, tokens * width)) return reject('wrong-length');
  const { buffer } = body.slice(0, labelBytes);
  const labels = isNarrow(shape) ? Int32Array.from(new Uint16Array(buffer)) : new Int32Array(buffer);
  if (labels.some((label) => label < 0 || label >= vocabulary)) return reject('bad-label');
  return accept({ labels, rows: body.subarray(labelBytes) });
}

/** What comes back: the microbatch's loss and dL/drows, and the callee's seal that these are for the rows sent. */
export interface TrainAnswer {
  readonly loss: number;
  readonly seal: Seal;
  /** dL/drows, encoded by the boundary's codec. */
  readonly rows: Uint8Array;
}

const lossSchema = z.number().finite().min(0).max(1e6);
const lossHeader = z.tuple([lossSchema]);
const answerHeader = z.tuple([lossSchema, sealSchema]);

export function encodeTrainAnswer({ loss, seal, rows }: TrainAnswer): Uint8Array {
  return frame([loss, sealForm(seal)], rows);
}

/** `malformed`, `wrong-length`, `not-finite`. Whose seal it is the caller judges. */
export function decodeTrainAnswer(
  message: Uint8Array,
  shape: BoundaryShape,
): Outcome<TrainAnswer & { readonly gradient: Float32Array }> {
  const parts = unframe(message);
  if (!parts.ok) return parts;
  const parsed = answerHeader.safeParse(parts.value.header);
  if (!parsed.success) return reject('malformed');
  const rows = parts.value.body;
  const gradient = decodeRows(rows, shape.codec, shape.tokens * shape.width);
  const [loss, seal] = parsed.data;
  return gradient.ok ? accept({ loss, seal, rows, gradient: gradient.value }) : gradient;
}

export interface EvaluateRequest {
  readonly round: number;
  readonly stage: number;
  readonly labels: Int32Array;
  readonly rows: Uint8Array;
}

const evaluateHeader = z.tuple([counterSchema, counterSchema]);

export function encodeEvaluateRequest(request: EvaluateRequest, shape: BoundaryShape): Uint8Array {
  const { round, stage, labels, rows } = request;
  return frame([round, stage], encodeLabels(labels, shape), rows);
}

/** As `decodeTrainRequest`. */
export function decodeEvaluateRequest(message: Uint8Array, shape: BoundaryShape): Outcome<EvaluateRequest> {
  const parts = unframe(message);
  if (!parts.ok) return parts;
  const parsed = evaluateHeader.safeParse(parts.value.header);
  if (!parsed.success) return reject('malformed');
  const body = labelledRows(parts.value.body, shape);
  if (!body.ok) return body;
  const [round, stage] = parsed.data;
  return accept({ round, stage, ...body.value });
}

export function encodeLoss(loss: number): Uint8Array {
  return frame([loss]);
}

export function decodeLoss(message: Uint8Array): Outcome<number> {
  const parts = unframe(message);
  if (!parts.ok) return parts;
  const parsed = lossHeader.safeParse(parts.value.header);
  return parsed.success ? accept(parsed.data[0]) : reject('malformed');
}

/** The two passes that end an inner step. */
export type StepRequest = StepPlace & {
  readonly driver: string;
} & (
    | {
        readonly pass: 'prepare';
        /** Microbatches whose dL/dy the caller used, growing. */
        readonly ids: readonly number[];
        /** The caller's, for what went over the boundary for them. */
        readonly receipt: Seal;
      }
    | {
        readonly pass: 'apply';
        /** L2 norm of the summed gradient of all stages. */
        readonly norm: number;
        /** The Driver's. */
        readonly seal: Seal;
      }
  );

const nodeId = z.string().regex(/^[0-9a-f]{64}$/);
const prepareSchema = z.tuple([
  z.literal('prepare'),
  counterSchema,
  counterSchema,
  counterSchema,
  nodeId,
  z.array(indexSchema).max(microbatchesMax),
  sealSchema,
]);
const applySchema = z.tuple([
  z.literal('apply'),
  counterSchema,
  counterSchema,
  counterSchema,
  nodeId,
  normSchema,
  sealSchema,
]);

/** Largest step message. */
export const stepBytesMax = 64 * 1024;

export function encodeStepRequest(request: StepRequest): Uint8Array {
  const { pass, round, stage, step, driver } = request;
  const said: Canonical[] =
    pass === 'prepare'
      ? [[...request.ids], sealForm(request.receipt)]
      : [request.norm, sealForm(request.seal)];
  return encodeCanonical([pass, round, stage, step, driver, ...said]);
}

export function decodeStepRequest(message: Uint8Array): Outcome<StepRequest> {
  const decoded = decodeCanonical(message, stepBytesMax);
  if (!decoded.ok) return decoded;
  const prepare = prepareSchema.safeParse(decoded.value);
  if (prepare.success) {
    const [pass, round, stage, step, driver, ids, receipt] = prepare.data;
    if (ids.some((id, i) => i > 0 && id <= ids[i - 1]!))
      return reject('malformed', 'microbatches out of order');
    return accept({ pass, round, stage, step, driver, ids, receipt });
  }
  const apply = applySchema.safeParse(decoded.value);
  if (!apply.success) return reject('malformed');
  const [pass, round, stage, step, driver, norm, seal] = apply.data;
  return accept({ pass, round, stage, step, driver, norm, seal });
}

/** Σg² by segment, of the answering stage and all after it, in order; with that stage's seal. */
export interface SealedSums {
  readonly sums: readonly number[];
  readonly seal: Seal;
}

const sealedSumsSchema = z.tuple([sumsSchema, sealSchema]);

export function encodeSums({ sums, seal }: SealedSums): Uint8Array {
  return encodeCanonical([[...sums], sealForm(seal)]);
}

export function decodeSums(message: Uint8Array): Outcome<SealedSums> {
  const decoded = decodeCanonical(message, 10 * segmentsMax + 128);
  if (!decoded.ok) return decoded;
  const parsed = sealedSumsSchema.safeParse(decoded.value);
  return parsed.success ? accept({ sums: parsed.data[0], seal: parsed.data[1] }) : reject('malformed');
}
