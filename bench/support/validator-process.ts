/** A process that is one validator on loopback: libp2p, its votes in files, its ledger in SQLite. Ends with its parent. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/platform/nodejs/clock.ts';
import { openLedgerDatabase } from '../../src/platform/nodejs/ledger-database.ts';
import { createLibp2pTransport } from '../../src/platform/nodejs/libp2p-host.ts';
import { installNodeSha256 } from '../../src/platform/nodejs/sha256.ts';
import { folderStore } from '../../src/platform/nodejs/store.ts';
import { toHex } from '../../src/std/bytes.ts';
import { startValidator, validatorNetwork } from './validator.ts';

export type ToValidator = { readonly type: 'pay' } | { readonly type: 'cpu' };

export type FromValidator =
  | { readonly type: 'started'; readonly address: string }
  | { readonly type: 'sent' | 'final'; readonly id: string; readonly atMs: number }
  | { readonly type: 'cpu'; readonly cpuMs: number };

interface Order {
  readonly validators: number;
  readonly index: number;
  readonly folder: string;
  readonly bootstrap: readonly string[];
}

installNodeSha256();
const order = JSON.parse(process.argv[2]!) as Order;
const tell = (message: FromValidator) => process.send?.(message);
/** The processes of a machine share it. */
const nowMs = () => performance.timeOrigin + performance.now();

const { network, keys } = validatorNetwork(order.validators);
const clock = systemClock();
await mkdir(order.folder, { recursive: true });
const transport = await createLibp2pTransport({
  key: keys[order.index]!,
  listen: ['/ip4/127.0.0.1/tcp/0'],
  bootstrap: order.bootstrap,
  networkId: toHex(network.networkId),
  clock,
  localSwarm: true,
});
const validator = await startValidator({
  network,
  keys,
  index: order.index,
  transport,
  clock,
  store: await folderStore(join(order.folder, 'store')),
  ledger: await openLedgerDatabase({
    path: join(order.folder, 'ledger.sqlite'),
    networkId: network.networkId,
  }),
  onFinal: (id) => tell({ type: 'final', id, atMs: nowMs() }),
});
process.on('disconnect', () => process.exit());
process.on('message', ({ type }: ToValidator) => {
  if (type === 'pay') {
    const atMs = nowMs();
    tell({ type: 'sent', id: validator.pay(), atMs });
  } else {
    const { user, system } = process.cpuUsage();
    tell({ type: 'cpu', cpuMs: (user + system) / 1000 });
  }
});
tell({ type: 'started', address: transport.addresses()[0]! });
