/**
 * The lock file works on every system: `npm ci` refuses one that leaves out an optional package of any platform, and a
 * lock file made where the registry lacks some of them leaves them out without a word. Reads files only.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

interface Locked {
  readonly version?: string;
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lockFile = fileURLToPath(new URL('../package-lock.json', import.meta.url));
const { packages } = JSON.parse(readFileSync(lockFile, 'utf8')) as {
  packages: Readonly<Record<string, Locked>>;
};

test('the lock file holds the optional packages of every platform', () => {
  let asked = 0;
  const missing: string[] = [];
  for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
    for (const name of Object.keys(optionalDependencies)) {
      asked++;
      const places = [`${path}/node_modules/${name}`, `node_modules/${name}`];
      if (!places.some((place) => packages[place]?.version !== undefined)) missing.push(name);
    }
  }
  assert.ok(asked > 20, 'Biome alone has ten');
  assert.deepEqual(missing, []);
});

test('the lock file names no registry', () => {
  const named = Object.entries(packages).filter(([, { resolved }]) => resolved !== undefined);
  assert.deepEqual(named, []);
});
