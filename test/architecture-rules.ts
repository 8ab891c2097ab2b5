/**
 * The house rules that a machine can hold: floors, cycles, barrels, host code, clocks and file length. Reads sources as
 * text (type imports and dynamic imports count too) and knows nothing of where they come from.
 */
import { posix } from 'node:path';

/** Source text by path from the repository root, with forward slashes. */
export type SourceTree = ReadonlyMap<string, string>;

export interface Report {
  readonly files: number;
  readonly imports: number;
  /** One line each: the path, then what is wrong. */
  readonly violations: readonly string[];
}

const floorOf: Readonly<Record<string, number>> = {
  std: 0,
  tensor: 1,
  identity: 1,
  genesis: 2,
  model: 2,
  ledger: 2,
  net: 2,
  optim: 3,
  consensus: 3,
  diloco: 4,
  pipeline: 4,
  audit: 5,
  peer: 6,
  api: 7,
  platform: 7,
  cli: 8,
};

/** Folders of `src/` that may use the host: everything else also runs in a browser. */
const hostFolders = ['platform', 'cli'];
/** npm packages that run anywhere, hence allowed below the platform floor. */
const portablePackages = [
  '@huggingface/tokenizers',
  '@ipld/dag-cbor',
  '@noble/hashes',
  'hono',
  'hyparquet',
  'hyparquet-compressors',
  'tiny-secp256k1',
  'zod',
];
const hostCalls =
  /\b(?:Date\.now|new Date\(\)|performance\.now|Math\.random|process\.(?!\()\w+|Buffer\.\w+|setTimeout\(|setInterval\(|setImmediate\()/;
const linesMax = 500;

/** Scripts that write committed sources: run by hand on Node, imported by nothing but their tests. */
const generators = ['src/tensor/kernels/build.ts'];

/** Everything under `test/`, tests and contract suites: they see all floors, and nothing else may import them. */
function isTest(path: string): boolean {
  return path.startsWith('test/') || generators.includes(path) || /\.test\.ts$|[.-]contract\.ts$/.test(path);
}

function folderOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

/**
 * Code that is safe to search: comments dropped, templates emptied, each string replaced by its number in quotes, so
 * that nothing inside a string looks like code.
 */
function maskStrings(source: string): { readonly code: string; readonly strings: readonly string[] } {
  const strings: string[] = [];
  const token = /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(`(?:\\.|[^`\\])*`)|\/\/.*|\/\*[\s\S]*?\*\//g;
  const code = source.replace(token, (_match, text: string | undefined, template: string | undefined) => {
    if (text !== undefined) return `'${strings.push(text.slice(1, -1)) - 1}'`;
    return template === undefined ? ' ' : '``';
  });
  return { code, strings };
}

/** Specifiers of static, side-effect, re-exporting, type and dynamic imports; `undefined` for a computed one. */
export function importsOf(source: string): (string | undefined)[] {
  const { code, strings } = maskStrings(source);
  const statements = code.matchAll(/^[ \t]*(?:import|export)\b(?:[^;'`()=]*?\bfrom)?\s*'(\d+)'/gm);
  const calls = code.matchAll(/\bimport\s*\(\s*(?:'(\d+)')?/g);
  return [...statements, ...calls].map((match) => strings[Number(match[1])]);
}

function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

export function checkArchitecture(tree: SourceTree): Report {
  const violations: string[] = [];
  const edges = new Map<string, string[]>();
  let imports = 0;
  for (const [path, source] of tree) {
    const targets: string[] = [];
    edges.set(path, targets);
    for (const specifier of importsOf(source)) {
      imports += 1;
      const target = specifier?.startsWith('.') ? posix.join(posix.dirname(path), specifier) : undefined;
      if (target !== undefined && tree.has(target)) targets.push(target);
      const problem = problemWithImport(path, specifier, target, tree);
      if (problem) violations.push(`${path}: ${problem}`);
    }
    for (const problem of problemsWithFile(path, source)) violations.push(`${path}: ${problem}`);
  }
  for (const cycle of findCycles(edges)) violations.push(`${cycle[0]}: import cycle ${cycle.join(' -> ')}`);
  return { files: tree.size, imports, violations };
}

function problemWithImport(
  path: string,
  specifier: string | undefined,
  target: string | undefined,
  tree: SourceTree,
): string | undefined {
  const folder = folderOf(path);
  const needsPortable = folder !== undefined && !hostFolders.includes(folder) && !isTest(path);
  if (specifier === undefined)
    return needsPortable ? 'computed import() below the platform floor' : undefined;
  if (target === undefined) {
    if (!needsPortable || portablePackages.includes(packageOf(specifier))) return undefined;
    return `imports ${specifier}, which is not known to run in a browser`;
  }
  if (!tree.has(target)) return `imports ${specifier}, which is not there`;
  if (isTest(path)) return undefined;
  if (isTest(target)) return `imports the test ${target}`;
  if (folder === undefined) return undefined;
  const targetFolder = folderOf(target);
  if (targetFolder === undefined) return `imports ${target}, which is outside src/`;
  if (targetFolder === folder) return undefined;
  const from = floorOf[folder];
  const to = floorOf[targetFolder];
  if (from === undefined || to === undefined) return undefined; // Reported once, for the file itself.
  if (to < from) return undefined;
  return `${folder} (floor ${from}) imports ${target} (floor ${to})`;
}

function problemsWithFile(path: string, source: string): string[] {
  const problems: string[] = [];
  const folder = folderOf(path);
  const { code } = maskStrings(source);
  if (path.startsWith('src/') && (folder === undefined || floorOf[folder] === undefined)) {
    problems.push('is in no folder that has a floor');
  }
  const statements = code.split(/;\s*(?:\n|$)/).filter((statement) => statement.trim() !== '');
  const isBarrel =
    statements.length > 0 && statements.every((statement) => /^\s*export\b[^=]*\bfrom\b/.test(statement));
  if (posix.basename(path) === 'index.ts' || isBarrel || /^\s*export\s+\*/m.test(code))
    problems.push('is a barrel');
  const lines = source.split('\n').length - 1;
  if (lines > linesMax && !path.endsWith('.wasm.ts'))
    problems.push(`has ${lines} lines, at most ${linesMax}`);
  if (folder !== undefined && !hostFolders.includes(folder) && !isTest(path)) {
    const call = hostCalls.exec(code);
    if (call) problems.push(`uses ${call[0]}: clocks, randomness and the host are handed in`);
  }
  return problems;
}

/** One cycle for each strongly connected knot that the search meets, as the path that closes it. */
function findCycles(edges: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string): void => {
    const start = trail.indexOf(path);
    if (start >= 0) {
      cycles.push([...trail.slice(start), path]);
      return;
    }
    if (done.has(path)) return;
    trail.push(path);
    for (const target of edges.get(path) ?? []) visit(target);
    trail.pop();
    done.add(path);
  };
  for (const path of edges.keys()) visit(path);
  return cycles;
}
