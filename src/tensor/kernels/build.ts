/**
 * Compiles `assembly/` into `module.wasm.ts` (`npm run build:kernels`). A development script: nothing imports it
 * but its test, which rebuilds and compares, so the committed module is always the one the sources give.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const here = new URL('.', import.meta.url);

/** The text of `module.wasm.ts` as the sources give it. Throws with the compiler's messages. */
export async function buildKernelModule(): Promise<string> {
  let wasm: Uint8Array | undefined;
  const messages: string[] = [];
  const { error } = await asc.main(
    [
      'index.ts',
      ...[
        '--outFile',
        'kernels.wasm',
        '--runtime',
        'stub',
        '--enable',
        'simd',
        '--importMemory',
        '--noAssert',
      ],
      ...['--optimizeLevel', '3', '--shrinkLevel', '0', '--converge', '--use', 'abort='],
    ],
    {
      readFile: (name) => {
        const url = new URL(`assembly/${name}`, here);
        try {
          return readFileSync(url, 'utf8');
        } catch {
          return null;
        }
      },
      writeFile: (name, contents) => {
        if (name === 'kernels.wasm' && typeof contents !== 'string') wasm = contents;
      },
      listFiles: () => [],
      stderr: { write: (text) => void messages.push(String(text)) },
    },
  );
  if (error || !wasm) throw new Error(`${error?.message ?? 'nothing was written'}\n${messages.join('')}`);
  const base64 = Buffer.from(wasm).toString('base64');
  return [
    '/** Built from `assembly/` by `npm run build:kernels`. Do not edit. */',
    `export const kernelModuleBase64 =\n  '${base64}';`,
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = await buildKernelModule();
  writeFileSync(new URL('module.wasm.ts', here), text);
  console.log(`module.wasm.ts: ${text.length} characters`);
}
