/**
 * Node processes of this machine, as `demo` and `swarm` run them: started with an IPC channel that carries their
 * events, stopped politely or killed, and never left behind. Knows nothing of what the nodes do.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { NodeEvent } from '../peer/events.ts';
import { CodedError } from '../std/outcome.ts';
import type { StopRequest } from './parent-process.ts';

export interface ChildSpec {
  /** Shown to people, and the key of the child in its group. */
  readonly name: string;
  /** From `programFile`: the product's own entry, or the hostile node of `sim/`. */
  readonly program: string;
  readonly args: readonly string[];
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last lines it wrote, for saying why it failed. */
  readonly lastLines: readonly string[];
}

export interface ChildHandlers {
  readonly onEvent: (name: string, event: NodeEvent) => void;
  /** A line of its stdout or stderr. */
  readonly onLine?: (name: string, line: string) => void;
  readonly onExit?: (name: string, status: ExitStatus) => void;
}

export interface ChildNode {
  readonly spec: ChildSpec;
  readonly pid: number | undefined;
  readonly exited: Promise<ExitStatus>;
  isRunning(): boolean;
  /** Asks over the channel, then SIGTERM after `askMs`, then SIGKILL after another `termMs`. */
  stop(limits?: StopLimits): Promise<ExitStatus>;
  /** `kill -9`. */
  kill(): Promise<ExitStatus>;
}

export interface StopLimits {
  readonly askMs?: number;
  readonly termMs?: number;
}

const linesKept = 20;

export function startChild(spec: ChildSpec, handlers: ChildHandlers): ChildNode {
  const child = fork(spec.program, [...spec.args], {
    execArgv: [],
    // JSON would turn the loss of a model that has overflowed into null.
    serialization: 'advanced',
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const lastLines: string[] = [];
  const onLine = (line: string) => {
    lastLines.push(line);
    if (lastLines.length > linesKept) lastLines.shift();
    handlers.onLine?.(spec.name, line);
  };
  readLines(child.stdout, onLine);
  readLines(child.stderr, onLine);
  child.on('message', (message: NodeEvent) => handlers.onEvent(spec.name, message));
  const exited = new Promise<ExitStatus>((resolve) => {
    let hasEnded = false;
    const end = (code: number | null, signal: NodeJS.Signals | null) => {
      if (hasEnded) return;
      hasEnded = true;
      const status = { code, signal, lastLines };
      handlers.onExit?.(spec.name, status);
      resolve(status);
    };
    // `close` comes after the last line and the last message were read, `exit` may come before.
    child.on('close', end);
    child.on('error', (error) => {
      onLine(error.message);
      if (child.pid === undefined) end(null, null);
    });
  });
  const isRunning = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  return {
    spec,
    pid: child.pid,
    exited,
    isRunning,
    stop: (limits) => stopChild(child, exited, isRunning, limits),
    kill() {
      child.kill('SIGKILL');
      return exited;
    },
  };
}

async function stopChild(
  child: ChildProcess,
  exited: Promise<ExitStatus>,
  isRunning: () => boolean,
  { askMs = 8_000, termMs = 4_000 }: StopLimits = {},
): Promise<ExitStatus> {
  if (!isRunning()) return exited;
  const request: StopRequest = { type: 'stop' };
  if (child.connected) child.send(request, () => undefined);
  const timers = [
    setTimeout(() => child.kill('SIGTERM'), askMs),
    setTimeout(() => child.kill('SIGKILL'), askMs + termMs),
  ];
  const status = await exited;
  for (const timer of timers) clearTimeout(timer);
  return status;
}

function readLines(stream: Readable | null, onLine: (line: string) => void): void {
  if (stream !== null) createInterface({ input: stream }).on('line', onLine);
}

export interface ChildGroup {
  /** A name that is still running is a bug; one that has ended starts again. */
  start(spec: ChildSpec): ChildNode;
  get(name: string): ChildNode | undefined;
  running(): readonly ChildNode[];
  /** Stops all at once, and starts none from then on. */
  stopAll(limits?: StopLimits): Promise<readonly ExitStatus[]>;
}

export function createChildGroup(handlers: ChildHandlers): ChildGroup {
  const children = new Map<string, ChildNode>();
  let isStopping = false;
  return {
    start(spec) {
      if (isStopping)
        throw new CodedError('stopping', `cannot start ${spec.name}: the others are being stopped`);
      if (children.get(spec.name)?.isRunning())
        throw new CodedError('already-running', `${spec.name} is running`);
      const child = startChild(spec, handlers);
      children.set(spec.name, child);
      return child;
    },
    get: (name) => children.get(name),
    running: () => [...children.values()].filter((child) => child.isRunning()),
    async stopAll(limits) {
      isStopping = true;
      return Promise.all([...children.values()].map((child) => child.stop(limits)));
    },
  };
}

/** Why a child ended, in words: `exit code 1: neuroshard: port 4001 is in use`. */
export function describeExit({ code, signal, lastLines }: ExitStatus): string {
  const how =
    signal !== null ? `ended by ${signal}` : code === null ? 'could not be started' : `exit code ${code}`;
  const why = lastLines.findLast((line) => line.startsWith('neuroshard: ')) ?? lastLines.at(-1);
  return why === undefined ? how : `${how}: ${why}`;
}

/**
 * Below the ports that systems give to outgoing connections (Linux: from 32768, others: from 49152): one of those may be
 * taken between the choice and the use.
 */
const firstPort = 15_000;
const endPort = 32_000;
const portAttempts = 1_000;

/** `count` different TCP ports of 127.0.0.1 that were free a moment ago. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  for (let attempt = 0; ports.size < count; attempt++) {
    if (attempt === portAttempts) throw new CodedError('no-free-port', `no ${count} free ports were found`);
    const port = randomInt(firstPort, endPort);
    if (!ports.has(port) && (await canListen(port))) ports.add(port);
  }
  return [...ports];
}

function canListen(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
