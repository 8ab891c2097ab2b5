/** Progress of long work: a bar that redraws itself on a terminal, a plain line now and then elsewhere. */

/** The part of a stream that is written to: a terminal, a pipe, or a test. */
export interface TextStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

export interface Progress {
  /** `done` of `total` units so far. */
  update(done: number, note?: string): void;
  /** Ends the bar with its last line. */
  end(note?: string): void;
}

export interface ProgressOptions {
  readonly label: string;
  readonly total: number;
  /** Shown after the numbers: `MB`, `tokens`. */
  readonly unit?: string;
  readonly nowMs?: () => number;
}

const redrawMs = 100;
const plainLineMs = 5_000;
const barWidth = 24;

export function createProgress(stream: TextStream, options: ProgressOptions): Progress {
  const nowMs = options.nowMs ?? (() => performance.now());
  const isTerminal = stream.isTTY === true;
  const startMs = nowMs();
  let shownMs = Number.NEGATIVE_INFINITY;
  let done = 0;
  let hasEnded = false;

  const show = (note: string | undefined, last: boolean): void => {
    shownMs = nowMs();
    const text = lineOf(options, done, shownMs - startMs, isTerminal, note, last);
    if (!isTerminal) stream.write(`${text}\n`);
    else stream.write(`\r${text.slice(0, (stream.columns ?? 80) - 1)}\x1b[K${last ? '\n' : ''}`);
  };

  return {
    update(value, note) {
      if (hasEnded) return;
      done = value;
      if (nowMs() - shownMs >= (isTerminal ? redrawMs : plainLineMs)) show(note, false);
    },
    end(note) {
      if (hasEnded) return;
      hasEnded = true;
      show(note, true);
    },
  };
}

function lineOf(
  options: ProgressOptions,
  done: number,
  elapsedMs: number,
  withBar: boolean,
  note: string | undefined,
  last: boolean,
): string {
  const { label, total, unit = '' } = options;
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const filled = Math.round(share * barWidth);
  const bar = withBar ? ` [${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}]` : '';
  const remainingMs =
    share > 0 && share < 1 && elapsedMs > 1000 ? (elapsedMs * (1 - share)) / share : undefined;
  const time = last
    ? `, ${formatDuration(elapsedMs)}`
    : remainingMs === undefined
      ? ''
      : `, ${formatDuration(remainingMs)} left`;
  const numbers = `${formatCount(done)}/${formatCount(total)}${unit ? ` ${unit}` : ''}`;
  return `${label}${bar} ${Math.floor(share * 100)}% (${numbers}${time})${note ? ` ${note}` : ''}`;
}

/** `950`, `12.3k`, `4.56M`, `7.8G`. */
export function formatCount(value: number): string {
  for (const [size, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e4, 'k'],
  ] as const) {
    if (Math.abs(value) >= size) return `${(value / (letter === 'k' ? 1e3 : size)).toPrecision(3)}${letter}`;
  }
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

/** `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`. */
export function formatDuration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (value: number) => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** `512 B`, `1.4 MB`: powers of ten, as networks and disks count. */
export function formatBytes(bytes: number): string {
  for (const [size, unit] of [
    [1e12, 'TB'],
    [1e9, 'GB'],
    [1e6, 'MB'],
    [1e3, 'kB'],
  ] as const) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${bytes} B`;
}
