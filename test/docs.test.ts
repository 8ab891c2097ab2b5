/** What the documentation points to is there: files and headings behind links, commands and options in examples. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const pages = globSync(['*.md', 'data/*.md', 'docs/**/*.md'], { cwd: root });
const textOf = (page: string) => readFileSync(join(root, page), 'utf8');
/** Code blocks hold no links and no headings. */
const proseOf = (page: string) => textOf(page).replace(/^```[\s\S]*?^```/gm, '');

/** As GitHub names the heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\- _]/gu, '')
    .replaceAll(' ', '-');
}

test('links lead to files and headings that are there', () => {
  let links = 0;
  for (const page of pages) {
    for (const [, target] of proseOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      links += 1;
      const [file, anchor] = target!.split('#') as [string, string?];
      const path = file === '' ? page : join(dirname(page), file);
      assert.ok(existsSync(join(root, path)), `${page} links to ${target}, which is not there`);
      if (anchor === undefined) continue;
      const headings = [...proseOf(path).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading!));
      assert.ok(headings.includes(anchor), `${page} links to ${target}: no such heading`);
    }
  }
  assert.ok(links > 50, `only ${links} links were read`);
});

test('commands and options in examples exist', async () => {
  const scripts = Object.keys(JSON.parse(textOf('package.json')).scripts);
  const optionsOf = new Map<string, Set<string>>();
  for (const page of pages) {
    for (const [, script] of textOf(page).matchAll(/npm run (?:-s )?([\w:]+)/g)) {
      assert.ok(scripts.includes(script!), `${page}: there is no npm run ${script}`);
    }
    for (const [, words, rest] of textOf(page).matchAll(/neuroshard -- ([a-z]+(?: [a-z]+)?)(.*)$/gm)) {
      const options = optionsOf.get(words!) ?? new Set();
      for (const [option] of rest!.matchAll(/--[a-z-]+/g)) options.add(option);
      optionsOf.set(words!, options);
    }
  }
  assert.ok(optionsOf.size >= 6, `only ${optionsOf.size} commands were read`);
  const run = promisify(execFile);
  for (const [words, options] of optionsOf) {
    const argv = [join(root, 'bin', 'neuroshard.js'), ...words.split(' '), '--help'];
    const { stdout } = await run(process.execPath, argv);
    assert.match(stdout, new RegExp(`^Usage: neuroshard ${words}`, 'm'), `there is no command ${words}`);
    for (const option of options) assert.ok(stdout.includes(option), `${words} has no option ${option}`);
  }
});
