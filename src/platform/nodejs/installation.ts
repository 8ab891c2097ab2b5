/**
 * Where this program lies: a checkout runs `.ts` sources, the published package compiled `.js` under `dist/`. Finds
 * package files and other programs of the package in both.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { must } from '../../std/assert.ts';

const ownExtension = extname(import.meta.filename);

function findRoot(folder: string): string | undefined {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const above = dirname(folder);
  return above === folder ? undefined : findRoot(above);
}

const root = must(findRoot(import.meta.dirname), 'the program lies in no package');

/** A file of the package, e.g. `data/default/manifest.json`. */
export function packageFile(...parts: readonly string[]): string {
  return join(root, ...parts);
}

/** An entry of the package by its path in the sources without extension: `src/cli/main`, `sim/hostile-node`. */
export function programFile(name: string): string {
  return ownExtension === '.ts' ? join(root, `${name}.ts`) : join(root, 'dist', `${name}.js`);
}

export function packageVersion(): string {
  const text = readFileSync(join(root, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
