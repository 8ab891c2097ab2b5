/**
 * Decoding one text with the whole model: tokens per second of the native engine, prompt and continuation apart.
 * Run: node bench/decode.ts [preset] [threads]
 */
import { presetConfig } from '../src/model/config.ts';
import { createDecoder } from '../src/model/generate.ts';
import { initialParameter } from '../src/model/initialize.ts';
import { parameterList, wholeModel } from '../src/model/parameters.ts';
import { createNativeEngine } from '../src/platform/nodejs/onnx-native.ts';
import { must } from '../src/std/assert.ts';
import { utf8 } from '../src/std/bytes.ts';

const preset = process.argv[2] ?? 'tiny';
const threads = Number(process.argv[3] ?? 1);
const repeats = 5;

const config = presetConfig(preset);
const weights = new Map(
  parameterList(config, wholeModel(config)).map(({ name, shape }) => [
    name,
    initialParameter(utf8('bench'), name, shape, config),
  ]),
);
const engine = createNativeEngine({ threads });
const decoder = await createDecoder({ engine, config, parameters: (name) => must(weights.get(name), name) });
const promptLength = config.context / 2;
const prompt = Int32Array.from({ length: promptLength }, (_, i) => (i * 37) % config.vocabulary);
const decoded = Math.min(256, config.context - promptLength);

let promptMs = Number.POSITIVE_INFINITY;
let decodeMs = Number.POSITIVE_INFINITY;
for (let repeat = 0; repeat < repeats; repeat++) {
  const session = decoder.session();
  const start = performance.now();
  await session.append(prompt);
  const between = performance.now();
  for (let i = 0; i < decoded; i++) await session.append(Int32Array.of(i % config.vocabulary));
  promptMs = Math.min(promptMs, between - start);
  decodeMs = Math.min(decodeMs, performance.now() - between);
}
await decoder.close();
await engine.close();

console.log(`${preset}, ${threads} thread(s), context ${config.context}, best of ${repeats}`);
console.log(`prompt   ${((1000 * promptLength) / promptMs).toFixed(0).padStart(8)} tokens/s`);
console.log(`decode   ${((1000 * decoded) / decodeMs).toFixed(0).padStart(8)} tokens/s`);
