/** Holds the repository to its floors, and the rules themselves to a small made-up tree with every violation. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { test } from 'node:test';
import { checkArchitecture, importsOf } from './architecture-rules.ts';

const root = join(import.meta.dirname, '..');

function repository(): Map<string, string> {
  const tree = new Map<string, string>();
  for (const path of globSync('{src,sim,bench,test}/**/*.ts', { cwd: root })) {
    if (path.includes('assembly')) continue; // AssemblyScript: another language in .ts files, which imports nothing.
    tree.set(path.split(sep).join('/'), readFileSync(join(root, path), 'utf8'));
  }
  return tree;
}

test('the repository keeps its floors', () => {
  const report = checkArchitecture(repository());
  assert.ok(report.files >= 200, `read only ${report.files} files: the test is blind`);
  assert.ok(report.imports >= 1000, `saw only ${report.imports} imports: the test is blind`);
  assert.deepEqual(report.violations, []);
});

test('every form of import is seen, and nothing that only looks like one', () => {
  const source = [
    "import a, { type B } from './a.ts';",
    "import type { C } from './c.ts';",
    "import './effect.ts';",
    "export { d } from './d.ts';",
    'import {',
    '  e,',
    '} from "./e.ts";',
    "const f = await import('./f.ts');",
    "type G = import('./g.ts').G;",
    'const h = await import(name);',
    "// import x from './comment.ts';",
    "/* import x from './block.ts'; */",
    "const text = `\nimport x from './template.ts';\n`;",
    "export const url = './not-an-import.ts';",
  ].join('\n');
  const expected = ['./a.ts', './c.ts', './effect.ts', './d.ts', './e.ts', './f.ts', './g.ts', undefined];
  assert.deepEqual(importsOf(source), expected);
});

const madeUp: readonly (readonly [path: string, source: string, violation: string | undefined])[] = [
  ['src/std/good.ts', "import { sha256 } from '@noble/hashes/sha2.js';", undefined],
  ['src/net/good.ts', "import { a } from '../std/good.ts';", undefined],
  [
    'src/net/upward.ts',
    "import type { A } from '../diloco/x.ts';",
    'net (floor 2) imports src/diloco/x.ts (floor 4)',
  ],
  ['src/diloco/x.ts', "import { a } from '../net/good.ts';", undefined],
  [
    'src/model/sideways.ts',
    "import { a } from '../net/good.ts';",
    'model (floor 2) imports src/net/good.ts (floor 2)',
  ],
  [
    'src/model/dynamic.ts',
    "await import('../peer/p.ts');",
    'model (floor 2) imports src/peer/p.ts (floor 6)',
  ],
  ['src/peer/p.ts', 'export const p = 1;', undefined],
  [
    'src/peer/host.ts',
    "import { join } from 'node:path';",
    'imports node:path, which is not known to run in a browser',
  ],
  [
    'src/peer/native.ts',
    "import * as ort from 'onnxruntime-node';",
    'imports onnxruntime-node, which is not known',
  ],
  ['src/peer/computed.ts', 'await import(name);', 'computed import() below the platform floor'],
  ['src/peer/clock.ts', 'const now = Date.now();', 'uses Date.now: clocks'],
  ['src/peer/quiet.ts', "const text = 'Date.now()'; // Math.random()", undefined],
  ['src/peer/p.test.ts', "import { test } from 'node:test';\nimport { p } from '../cli/main.ts';", undefined],
  ['src/peer/uses-test.ts', "import './p.test.ts';", 'imports the test src/peer/p.test.ts'],
  ['src/cli/main.ts', "import { join } from 'node:path';\nimport '../peer/p.ts';", undefined],
  ['src/cli/gone.ts', "import './nowhere.ts';", 'imports ./nowhere.ts, which is not there'],
  ['src/cli/outside.ts', "import '../../sim/main.ts';", 'imports sim/main.ts, which is outside src/'],
  [
    'src/optim/a.ts',
    "import type { B } from './b.ts';",
    'import cycle src/optim/a.ts -> src/optim/b.ts -> src/optim/a.ts',
  ],
  ['src/optim/b.ts', "import { a } from './a.ts';", undefined],
  ['src/optim/all.ts', "export { a } from './a.ts';", 'is a barrel'],
  ['src/optim/star.ts', "const x = 1;\nexport * from './b.ts';", 'is a barrel'],
  ['src/utils/x.ts', 'export const x = 1;', 'is in no folder that has a floor'],
  ['src/stray.ts', 'export const x = 1;', 'is in no folder that has a floor'],
  ['src/std/long.ts', 'let x;\n'.repeat(501), 'has 501 lines'],
  ['sim/main.ts', "import '../src/cli/main.ts';\nimport 'node:os';", undefined],
];

test('every rule finds its violation in a made-up tree, and only there', () => {
  const { violations } = checkArchitecture(new Map(madeUp.map(([path, source]) => [path, source])));
  for (const [path, , expected] of madeUp) {
    const found = violations.filter((violation) => violation.startsWith(`${path}: `));
    assert.equal(found.length, expected === undefined ? 0 : 1, `${path}: ${found.join('; ')}`);
    if (expected !== undefined) assert.ok(found[0]?.includes(expected), `${found[0]} should say ${expected}`);
  }
});
