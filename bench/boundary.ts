/**
 * What a stage boundary sends and gets back for each token, by how rows travel: lengths of real messages of a microbatch
 * (request with claim and labels, answer with dL/drows), without what the transport adds. Exits with 1 where rows of bf16
 * or int8 are not a half or a quarter of f32's, but for what is allowed beside them.
 * Run: `node bench/boundary.ts [--presets tiny,small] [--json]`.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { keyPairFrom } from '../src/identity/keys.ts';
import { presetConfig } from '../src/model/config.ts';
import { defaultTraining } from '../src/peer/policy.ts';
import { contentHash, encodeClaim, makeClaim } from '../src/pipeline/claim.ts';
import { encodeTrainAnswer, encodeTrainRequest } from '../src/pipeline/messages.ts';
import { encodeRows, type RowCodec, rowCodecs } from '../src/pipeline/row-codec.ts';
import { signAnswer } from '../src/pipeline/seals.ts';
import { installSha256, sha256Hex } from '../src/std/hash.ts';
import { table } from './support/run-neuroshard.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const { values } = parseArgs({
  options: {
    presets: { type: 'string', default: 'tiny,small' },
    json: { type: 'boolean', default: false },
  },
});

/** Of f32's bytes of rows: what is meant, and how much more it may be, as a share of what is meant. */
const goals: Readonly<Record<RowCodec, { readonly share: number; readonly more: number }>> = {
  f32: { share: 1, more: 0.01 },
  bf16: { share: 1 / 2, more: 0.01 },
  int8: { share: 1 / 4, more: 0.03 },
};

function measure(preset: string, codec: RowCodec) {
  const { width, vocabulary } = presetConfig(preset);
  const { batch, sequence } = defaultTraining(presetConfig(preset));
  const tokens = batch * sequence;
  // Counters of a late round: the longest that they become in years.
  const place = { round: 100_000, step: 499, index: 15 };
  const labels = new Int32Array(tokens);
  const key = keyPairFrom(new Uint8Array(32).fill(1));
  const content = contentHash(labels, labels);
  const claim = encodeClaim(makeClaim(new Uint8Array(32), { ...place, content }, key));
  const gradient = Float32Array.from({ length: tokens * width }, (_, i) => Math.sin(i));
  const rows = encodeRows(gradient, codec);
  const shape = { tokens, width, vocabulary, codec };
  const request = encodeTrainRequest({ ...place, stage: 1, claim, labels, rows }, shape).length;
  const exchange = { index: place.index, rows: sha256Hex(rows), gradient: sha256Hex(rows) };
  const names = { stage: 1, caller: key.nodeId, driver: key.nodeId, round: place.round, step: place.step };
  const seal = signAnswer(new Uint8Array(32), { ...names, ...exchange }, key);
  const answer = encodeTrainAnswer({ loss: Math.LN2, seal, rows }).length;
  const floats = 2 * gradient.byteLength;
  const labelBytes = (vocabulary <= 65_536 ? 2 : 4) * tokens;
  const framing = request + answer - labelBytes - 2 * rows.length;
  const { share, more } = goals[codec];
  const wanted = share * floats;
  const beyond = (request + answer - labelBytes) / wanted - 1;
  const beyondWithLabels = (request + answer) / wanted - 1;
  return {
    preset,
    codec,
    tokens,
    width,
    request,
    answer,
    bytesPerToken: (request + answer) / tokens,
    rowsPerToken: (2 * rows.length) / tokens,
    labelsPerToken: labelBytes / tokens,
    framingPerToken: framing / tokens,
    /** Beyond the half or the quarter of f32's rows, as a share of it: int8's scales, header and claim. */
    beyond,
    beyondWithLabels,
    allowed: more,
    holds: beyond < more && (codec === 'int8' || 2 * rows.length === wanted),
    holdsWithLabels: beyondWithLabels < more,
  };
}

const measured = values.presets.split(',').flatMap((name) => rowCodecs.map((codec) => measure(name, codec)));
if (values.json) process.stdout.write(`${JSON.stringify({ measured })}\n`);
else {
  const percent = (share: number) => `${(100 * share).toFixed(2)}%`;
  const lines = measured.map((one) => [
    `${one.preset} ${one.codec}`,
    one.bytesPerToken.toFixed(2),
    one.rowsPerToken.toFixed(2),
    one.labelsPerToken.toFixed(2),
    one.framingPerToken.toFixed(2),
    percent(one.beyond),
    percent(one.beyondWithLabels),
    percent(one.allowed),
  ]);
  const header = ['bytes a token', 'all', 'rows', 'labels', 'framing', 'beyond', 'with labels', 'allowed'];
  process.stdout.write(`${table(header, lines)}\n`);
}
if (!measured.every(({ holds }) => holds)) process.exitCode = 1;
