import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { StartCluster, TransportCluster } from '../../../test/transport-cluster.ts';
import { testTransport } from '../../../test/transport-contract.ts';
import { generateKeyPair } from '../../identity/keys.ts';
import { systemClock } from './clock.ts';
import { createLibp2pTransport, type Libp2pTransport } from './libp2p-host.ts';

const startCluster: StartCluster = async (count, scorePolicy, options): Promise<TransportCluster> => {
  const clock = systemClock();
  const keys = Array.from({ length: count }, generateKeyPair);
  const transports: Libp2pTransport[] = [];
  const addresses: string[] = [];

  async function start(index: number): Promise<Libp2pTransport> {
    const bootstrap = addresses.filter((_, other) => other !== index).slice(0, 1);
    const listen = addresses[index]?.replace(/\/p2p\/.*/, '') ?? '/ip4/127.0.0.1/tcp/0';
    return await createLibp2pTransport({
      key: keys[index]!,
      listen: [listen],
      bootstrap,
      networkId: 'contract',
      clock,
      localSwarm: true,
      dht: options?.directory ?? false,
      ...(scorePolicy ? { scorePolicy } : {}),
    });
  }
  async function until(condition: () => boolean, what: string): Promise<void> {
    for (let i = 0; i < 750 && !condition(); i++) await pause(20);
    assert.ok(condition(), `waited in vain for ${what}`);
  }
  for (let index = 0; index < count; index++) {
    const transport = await start(index);
    transports.push(transport);
    addresses.push(transport.addresses()[0]!);
  }
  await until(() => transports.every((transport) => transport.peers().length === count - 1), 'a full mesh');
  return {
    transports,
    until,
    pass: (ms) => pause(ms),
    run: (promise) => promise,
    stop: (index) => transports[index]!.close(),
    async restart(index) {
      transports[index] = await start(index);
    },
    async close() {
      await Promise.all(transports.map((transport) => transport.close()));
    },
  };
};

testTransport('libp2p', startCluster);
