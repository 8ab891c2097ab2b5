/** What honest nodes of a swarm told of the ledger's blocks: whether they stand on one state root. Pure; prints nothing. */
import { formatNeuro } from '../ledger/neuro.ts';
import type { NodeEvent } from '../peer/events.ts';

export interface LedgerView {
  /** Newest blocks: root by node name, as they told. */
  readonly blocks: Map<number, { readonly roots: Map<string, string>; readonly supply: string }>;
  /** The first difference between two roots: it stays. */
  difference: string | undefined;
}

/** More than nodes that run are apart. */
const blocksKept = 32;
/** Blocks between two plain lines. */
const plainBlocks = 10;

export function createLedgerView(): LedgerView {
  return { blocks: new Map(), difference: undefined };
}

/** Lines for an output without a terminal. `running`: names of the honest nodes that have not ended. */
export function noteBlock(
  ledger: LedgerView,
  name: string,
  event: NodeEvent & { type: 'block' },
  running: readonly string[],
): string[] {
  const { number, stateRoot, supply } = event;
  const block = ledger.blocks.get(number) ?? { roots: new Map<string, string>(), supply };
  block.roots.set(name, stateRoot);
  ledger.blocks.set(number, block);
  for (const old of ledger.blocks.keys()) if (old <= number - blocksKept) ledger.blocks.delete(old);
  if (ledger.difference !== undefined) return [];
  if (new Set(block.roots.values()).size > 1) {
    const said = [...block.roots].map(([node, root]) => `${node} ${root.slice(0, 6)}`).join(', ');
    ledger.difference = `STATE ROOTS DIFFER after block ${number}: ${said}`;
    return [ledger.difference];
  }
  const isWhole = running.every((node) => block.roots.has(node));
  const line = isWhole && number % plainBlocks === 0 ? describeLedger(ledger, running) : undefined;
  return line === undefined ? [] : [line];
}

/** Of the newest block that all running nodes have told of; undefined before. */
export function describeLedger(ledger: LedgerView, running: readonly string[]): string | undefined {
  if (ledger.difference !== undefined) return ledger.difference;
  const whole = [...ledger.blocks].filter(([, { roots }]) => running.every((node) => roots.has(node)));
  if (whole.length === 0 || running.length === 0) return undefined;
  const [number, { roots, supply }] = whole.reduce((newest, one) => (one[0] > newest[0] ? one : newest));
  const [root] = roots.values();
  const count = `${roots.size} ${roots.size === 1 ? 'node' : 'nodes'}`;
  return `block ${number}: same state root ${root!.slice(0, 6)} on ${count}, supply ${formatNeuro(BigInt(supply))} NEURO`;
}
