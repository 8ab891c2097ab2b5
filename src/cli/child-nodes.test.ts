/** Child processes with the real parent channel: events arrive, stopping is polite first, and nothing is left behind. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { NodeEvent } from '../peer/events.ts';
import { createChildGroup, describeExit, freePorts } from './child-nodes.ts';

const folder = mkdtempSync(join(tmpdir(), 'neuroshard-children-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const moduleUrl = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);

/** A node that reports its pid, then behaves as its argument says. */
const nodeProgram = join(folder, 'node.mjs');
writeFileSync(
  nodeProgram,
  `import { sendToParent, watchParent } from ${moduleUrl('./parent-process.ts')};
   const signal = watchParent();
   const keepAlive = setInterval(() => undefined, 1000);
   process.on('SIGTERM', () => process.argv[2] === 'deaf' || process.exit(3));
   signal.addEventListener('abort', () => {
     if (process.argv[2] !== 'polite') return;
     sendToParent({ type: 'stopped', reason: signal.reason.message });
     clearInterval(keepAlive);
     process.channel?.unref();
   });
   if (process.argv[2] === 'broken') {
     console.error('neuroshard: the port is in use');
     process.exit(1);
   }
   sendToParent({ type: 'heldOut', round: process.pid, loss: 1 });`,
);

function group() {
  const events: [name: string, event: NodeEvent][] = [];
  const waiting: (() => void)[] = [];
  const children = createChildGroup({
    onEvent: (name, event) => {
      events.push([name, event]);
      for (const wake of waiting.splice(0)) wake();
    },
  });
  const start = async (name: string, behaviour: string) => {
    const child = children.start({ name, program: nodeProgram, args: [behaviour] });
    while (!events.some(([, event]) => event.type === 'heldOut' && event.round === child.pid)) {
      await new Promise<void>((wake) => waiting.push(wake));
    }
    return child;
  };
  return { children, events, start };
}

test('events arrive; a polite node stops when asked, one that ignores it by SIGTERM, a deaf one by SIGKILL', async () => {
  const { children, events, start } = group();
  const [polite, ignoring, deaf] = await Promise.all([
    start('a', 'polite'),
    start('b', 'ignoring'),
    start('c', 'deaf'),
  ]);
  assert.equal(children.running().length, 3);
  const statuses = await Promise.all([
    polite.stop({ askMs: 60_000 }),
    ignoring.stop({ askMs: 100, termMs: 60_000 }),
    deaf.stop({ askMs: 100, termMs: 100 }),
  ]);
  assert.deepEqual(
    statuses.map(({ code, signal }) => [code, signal]),
    [
      [0, null],
      [3, null],
      [null, 'SIGKILL'],
    ],
  );
  assert.equal(children.running().length, 0);
  assert.ok(events.some(([name, event]) => name === 'a' && event.type === 'stopped'));
  await children.stopAll();
  assert.throws(() => children.start({ name: 'd', program: nodeProgram, args: [] }), { code: 'stopping' });
});

test('a killed node can be started again under its name, a running one cannot', async () => {
  const { children, start } = group();
  const first = await start('a', 'polite');
  await assert.rejects(start('a', 'polite'), { code: 'already-running' });
  assert.equal((await first.kill()).signal, 'SIGKILL');
  const second = await start('a', 'polite');
  assert.notEqual(second.pid, first.pid);
  assert.equal(children.get('a'), second);
  await children.stopAll();
});

test('why a node ended is told by its own last word', async () => {
  const { children } = group();
  const status = await children.start({ name: 'a', program: nodeProgram, args: ['broken'] }).exited;
  assert.equal(describeExit(status), 'exit code 1: neuroshard: the port is in use');
});

function hasEnded(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}

test('no node outlives its parent, even one killed outright', async () => {
  const parentProgram = join(folder, 'parent.mjs');
  writeFileSync(
    parentProgram,
    `import { createChildGroup } from ${moduleUrl('./child-nodes.ts')};
     const children = createChildGroup({ onEvent: (name, event) => console.log(event.round) });
     for (const name of ['a', 'b']) children.start({ name, program: ${JSON.stringify(nodeProgram)}, args: ['polite'] });`,
  );
  const parent: ChildProcess = spawn(process.execPath, [parentProgram], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  while (output.split('\n').length < 3) output += String((await once(parent.stdout!, 'data'))[0]);
  const pids = output.trim().split('\n').map(Number);
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  for (const pid of pids) {
    while (!hasEnded(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

/** As npm runs a script: itself, a shell that it does not end when killed, and this program. */
test('a command under npm stops when npm is killed', { skip: process.platform !== 'linux' }, async () => {
  const commandProgram = join(folder, 'command.mjs');
  writeFileSync(
    commandProgram,
    `import { watchParent } from ${moduleUrl('./parent-process.ts')};
     const signal = watchParent();
     const keepAlive = setInterval(() => undefined, 1000);
     signal.addEventListener('abort', () => clearInterval(keepAlive));
     console.log(process.pid);`,
  );
  const npmProgram = join(folder, 'npm.mjs');
  const shellLine = JSON.stringify(`'${process.execPath}' '${commandProgram}'; exit 0`);
  const options =
    "{ stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, npm_lifecycle_event: 'start' } }";
  writeFileSync(
    npmProgram,
    `import { spawn } from 'node:child_process';
     spawn('sh', ['-c', ${shellLine}], ${options});`,
  );
  const npm = spawn(process.execPath, [npmProgram], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = Number(String((await once(npm.stdout, 'data'))[0]));
  npm.kill('SIGKILL');
  while (!hasEnded(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
});

test('free ports are different and can be listened on', async () => {
  const ports = await freePorts(4);
  assert.equal(new Set(ports).size, 4);
  assert.ok(
    ports.every((port) => port < 32_768),
    'no port that an outgoing connection may take',
  );
  const server = createServer().listen(ports[0], '127.0.0.1');
  await once(server, 'listening');
  server.close();
});
