/** Processor time of processes, as Linux tells it: all threads, in hundredths of a second. Elsewhere nothing is known. */
import { readdir, readFile } from 'node:fs/promises';

interface ProcessStat {
  readonly parent: number;
  readonly cpuMs: number;
}

async function statOf(pid: number): Promise<ProcessStat | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name, in brackets, may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [parent, ticks] = [Number(fields[1]), Number(fields[11]) + Number(fields[12])];
  return Number.isFinite(ticks) ? { parent, cpuMs: 10 * ticks } : undefined;
}

/** Milliseconds since the process began; null where nobody says. */
export async function processCpuMs(pid: number | undefined): Promise<number | null> {
  return pid === undefined ? null : ((await statOf(pid))?.cpuMs ?? null);
}

/** Of its children, alive now: by process id. */
export async function childrenCpuMs(pid: number | undefined): Promise<ReadonlyMap<number, number>> {
  const found = new Map<number, number>();
  const names = await readdir('/proc').catch(() => []);
  for (const child of names.map(Number).filter(Number.isInteger)) {
    const stat = await statOf(child);
    if (stat && stat.parent === pid) found.set(child, stat.cpuMs);
  }
  return found;
}
