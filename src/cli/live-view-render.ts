/** The live view as lines of text: a table of nodes, the latest rounds, and the held-out loss as a small curve. Pure. */
import { formatNeuro } from '../ledger/neuro.ts';
import { describeLedger } from './live-ledger.ts';
import {
  describeAgreement,
  describeStep,
  describeWeights,
  type LiveView,
  type NodeView,
  oneLine,
  type RoundView,
  runningHonest,
} from './live-view.ts';
import { formatBytes, formatCount } from './progress.ts';

export interface RenderOptions {
  /** Columns; no line is longer. */
  readonly width: number;
  /** Lines; rounds are left out first. */
  readonly height: number;
  readonly color: boolean;
  /** Shown beside the title, e.g. the time since the start. */
  readonly status?: string;
  /** The last line, e.g. how to stop. */
  readonly footer?: string;
}

type Style = 'plain' | 'bold' | 'dim' | 'red' | 'green';
type Piece = readonly [text: string, style: Style];
type Line = readonly Piece[];

const codes: Readonly<Record<Style, string>> = { plain: '', bold: '1', dim: '2', red: '31', green: '32' };

export function renderLiveView(view: LiveView, options: RenderOptions): string[] {
  const parameters = parametersOf(view.nodes);
  const facts = [
    parameters === undefined ? '' : `${formatCount(parameters)} parameters`,
    options.status ?? '',
  ];
  const head: Line[] = [
    [
      [view.title, 'bold'],
      ['', 'plain'],
      [
        facts
          .filter(Boolean)
          .map((fact) => `, ${fact}`)
          .join(''),
        'plain',
      ],
    ],
    [],
    ...nodeTable(view.nodes),
    [],
    lossLine([...view.heldOutLosses].sort(([a], [b]) => a - b).map(([, loss]) => loss)),
  ];
  const ledger = describeLedger(view.ledger, runningHonest(view));
  if (ledger !== undefined)
    head.push([
      ['  ledger  ', 'dim'],
      [ledger, view.ledger.difference === undefined ? 'plain' : 'red'],
    ]);
  const tail: Line[] = [];
  if (view.sample) {
    tail.push(
      [],
      [
        [`sample ${describeWeights(view.sample.round)}: `, 'dim'],
        [oneLine(view.sample.prompt), 'dim'],
        [` ${oneLine(view.sample.text)}`, 'plain'],
      ],
    );
  }
  if (view.notes.length > 0) tail.push([], ...view.notes.map((note): Line => [[note, 'dim']]));
  if (options.footer) tail.push([], [[options.footer, 'dim']]);
  const room = Math.max(1, options.height - head.length - tail.length - 2);
  const rounds: Line[] =
    view.rounds.length === 0
      ? []
      : [[], ...roundTable(view.rounds.slice(-Math.min(room, 8)), view.heldOutLosses)];
  return [...head, ...rounds, ...tail].slice(0, options.height).map((line) => paint(line, options));
}

/** Of the whole model, once every stage has told its own; undefined before. */
function parametersOf(nodes: readonly NodeView[]): number | undefined {
  const byStage = new Map(nodes.map(({ stage, parameters }) => [stage, parameters] as const));
  const known = [...byStage.values()].filter((count) => count !== undefined);
  if (known.length === 0 || nodes.some(({ parameters }) => parameters === undefined)) return undefined;
  return known.reduce((sum, count) => sum + count, 0);
}

/** Cuts at the width before colouring, so that an escape sequence is never cut. */
function paint(line: Line, { width, color }: RenderOptions): string {
  let left = width;
  let text = '';
  for (const [piece, style] of line) {
    const cut = [...piece].slice(0, left).join('');
    left -= [...cut].length;
    if (cut !== '') text += color && style !== 'plain' ? `\x1b[${codes[style]}m${cut}\x1b[0m` : cut;
  }
  return text;
}

/** Columns are as wide as their widest cell; numbers stand to the right. */
function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  left: readonly number[],
): string[][] {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]!.length)),
  );
  return [header, ...rows].map((row) =>
    row.map((cell, column) => {
      const width = widths[column]!;
      return column === row.length - 1 && left.includes(column)
        ? `  ${cell}`
        : `  ${left.includes(column) ? cell.padEnd(width) : cell.padStart(width)}`;
    }),
  );
}

function nodeTable(nodes: readonly NodeView[]): Line[] {
  const isCut = nodes.some((node) => node.stage > 0);
  const header = [
    'node',
    'role',
    ...(isCut ? ['stage'] : []),
    'round',
    'step',
    'tokens/s',
    'loss',
    'held-out',
    'peers',
    'NEURO',
    '',
  ];
  const number = (value: number | undefined, digits: number) => value?.toFixed(digits) ?? '-';
  const rows = nodes.map((node) => [
    node.name,
    node.role,
    ...(isCut ? [String(node.stage + 1)] : []),
    String(node.round),
    describeStep(node.step, node.innerSteps),
    !node.tokensPerSecond ? '-' : String(Math.round(node.tokensPerSecond)),
    number(node.loss, 3),
    number(node.heldOutLoss, 3),
    number(node.peers, 0),
    node.earned === undefined ? '-' : formatNeuro(BigInt(node.earned)),
    node.state === 'training' ? '' : node.state,
  ]);
  const [top, ...body] = table(header, rows, [0, 1, header.length - 1]);
  const styleOf = (node: NodeView): Style =>
    node.state === 'stopped' ? 'dim' : node.role === 'hostile' ? 'red' : 'plain';
  return [
    [[top!.join(''), 'dim']],
    ...body.map((cells, index): Line => [[cells.join(''), styleOf(nodes[index]!)]]),
  ];
}

function roundTable(rounds: readonly RoundView[], heldOutLosses: ReadonlyMap<number, number>): Line[] {
  const header = ['round', 'held-out', 'accepted', 'rejected', 'sent', 'state'];
  const rows = rounds.map((round) => {
    const reports = [...round.reports.values()];
    const bytes = reports.reduce((sum, report) => sum + report.bytesSent, 0);
    const reasons = round.rejected.map(({ node, code }) => `${node} ${code}`).join(', ');
    return [
      String(round.round),
      heldOutLosses.get(round.round + 1)?.toFixed(3) ?? '-',
      String(round.accepted.length),
      reasons === '' ? '0' : `${round.rejected.length}: ${reasons}`,
      formatBytes(bytes),
      describeAgreement(round),
    ];
  });
  const [top, ...body] = table(header, rows, [3, 5]);
  return [
    [[top!.join(''), 'dim']],
    ...body.map((cells): Line => {
      const state = cells.at(-1)!;
      return [
        [cells.slice(0, -1).join(''), 'plain'],
        [state, state.includes('DIFFER') ? 'red' : 'green'],
      ];
    }),
  ];
}

function lossLine(losses: readonly number[]): Line {
  const first = losses[0];
  const last = losses.at(-1);
  if (first === undefined || last === undefined) return [['  held-out loss  not yet measured', 'dim']];
  if (losses.length === 1)
    return [
      ['  held-out loss  ', 'dim'],
      [first.toFixed(3), 'plain'],
    ];
  const change = ((last - first) / first) * 100;
  const style: Style = last < first ? 'green' : 'red';
  return [
    ['  held-out loss  ', 'dim'],
    [`${first.toFixed(3)} ${sparkline(losses, 40)} ${last.toFixed(3)}`, 'plain'],
    [` (${change > 0 ? '+' : ''}${change.toFixed(1)}%)`, style],
  ];
}

const bars = '▁▂▃▄▅▆▇█';

/** The values as bars between their least and greatest; more than `width` values are thinned out evenly. */
export function sparkline(values: readonly number[], width: number): string {
  const count = Math.min(values.length, width);
  const shown = Array.from({ length: count }, (_, index) =>
    count === 1 ? values[0]! : values[Math.round((index * (values.length - 1)) / (count - 1))]!,
  );
  const finite = shown.filter(Number.isFinite);
  const least = Math.min(...finite);
  const span = Math.max(...finite) - least;
  const bar = (value: number) => {
    if (!Number.isFinite(value)) return '?';
    return bars[span === 0 ? 0 : Math.round(((value - least) / span) * (bars.length - 1))]!;
  };
  return shown.map(bar).join('');
}
