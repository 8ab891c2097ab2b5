/** The command line: one line for each command, in the order of `--help` (what a newcomer needs first). */
import { register as registerBench } from './bench.ts';
import { register as registerChat } from './chat.ts';
import { register as registerDemo } from './demo.ts';
import { register as registerDoctor } from './doctor.ts';
import { register as registerApiKeys } from './gateway-keys.ts';
import { register as registerGenerate } from './generate.ts';
import { register as registerGenesis } from './genesis.ts';
import { register as registerNetwork } from './network.ts';
import { register as registerNode } from './node.ts';
import { register as registerNodeStatus } from './node-status.ts';
import { runMain } from './run-main.ts';
import { register as registerSwarm } from './swarm.ts';
import { register as registerTrain } from './train.ts';
import { register as registerWallet } from './wallet.ts';

await runMain([
  registerDemo,
  registerSwarm,
  registerTrain,
  registerGenerate,
  registerChat,
  registerNetwork,
  registerNode,
  registerNodeStatus,
  registerWallet,
  registerApiKeys,
  registerGenesis,
  registerBench,
  registerDoctor,
]);
