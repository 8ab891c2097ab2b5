/**
 * The live view on an output: redrawn in place on a terminal, at most ten times a second and without flicker; plain
 * lines, each once, everywhere else.
 */
import type { NodeEvent } from '../peer/events.ts';
import { addNote, applyEvent, applyExit, createLiveView, type LiveView, type Role } from './live-view.ts';
import { renderLiveView } from './live-view-render.ts';
import { formatDuration, type TextStream } from './progress.ts';

export interface LiveScreen {
  /** For reports of what was shown. */
  readonly view: LiveView;
  event(name: string, event: NodeEvent): void;
  exit(name: string, how: string): void;
  note(text: string): void;
  /** Draws what is still due, and leaves the cursor below. */
  close(): void;
}

export interface LiveScreenOptions {
  readonly title: string;
  readonly nodes: readonly { readonly name: string; readonly role: Role }[];
  readonly footer?: string;
  readonly color?: boolean;
  readonly nowMs?: () => number;
}

const redrawMs = 100;

export interface ScreenStream extends TextStream {
  readonly rows?: number | undefined;
}

export function openLiveScreen(stream: ScreenStream, options: LiveScreenOptions): LiveScreen {
  const view = createLiveView(options.title, options.nodes);
  const nowMs = options.nowMs ?? (() => performance.now());
  const startMs = nowMs();
  const isTerminal = stream.isTTY === true;
  const color = options.color ?? !process.env.NO_COLOR;
  let linesDrawn = 0;
  let timer: NodeJS.Timeout | undefined;

  const draw = () => {
    timer = undefined;
    const lines = renderLiveView(view, {
      width: (stream.columns ?? 80) - 1,
      height: (stream.rows ?? 24) - 1,
      color,
      status: formatDuration(nowMs() - startMs),
      ...(options.footer === undefined ? {} : { footer: options.footer }),
    });
    stream.write(redrawText(lines, linesDrawn));
    linesDrawn = lines.length;
  };
  const show = (lines: readonly string[]) => {
    if (isTerminal) timer ??= setTimeout(draw, redrawMs).unref();
    else for (const line of lines) stream.write(`${line}\n`);
  };

  return {
    view,
    event: (name, event) => show(applyEvent(view, name, event)),
    exit: (name, how) => show(applyExit(view, name, how)),
    note: (text) => show(addNote(view, text)),
    close() {
      clearTimeout(timer);
      if (isTerminal) draw();
    },
  };
}

/**
 * Goes up over the lines drawn before, writes each new one and clears what is left of the old. Between the two
 * "synchronized update" marks a terminal that knows them shows nothing half-drawn; others ignore them.
 */
export function redrawText(lines: readonly string[], linesDrawn: number): string {
  const up = linesDrawn > 0 ? `\x1b[${linesDrawn}A\r` : '';
  return `\x1b[?2026h${up}${lines.map((line) => `${line}\x1b[K\n`).join('')}\x1b[J\x1b[?2026l`;
}
