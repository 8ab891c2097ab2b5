/**
 * What the compute thread and the compute process do alike: make the engine and the replica, serve it, and clean up
 * when the other side has gone. Knows neither threads nor processes.
 */
import { measuredEngines } from '../../audit/tolerance.ts';
import { createLocalReplica, type ReplicaSettings } from '../../diloco/local-replica.ts';
import type { Engine } from '../../tensor/engine.ts';
import type { ComputePort } from './compute-port.ts';
import { serveReplica } from './compute-rpc.ts';
import { installNodeSha256 } from './sha256.ts';

/** Resolves when the port has closed and the engine is released; the call under way is finished first. */
export async function serveCompute(
  port: ComputePort,
  settings: ReplicaSettings,
  createEngine: () => Promise<Engine>,
): Promise<void> {
  installNodeSha256();
  const closed = new Promise<void>((resolve) => port.onClose(resolve));
  const engine = createEngine();
  serveReplica(
    engine.then((made) => createLocalReplica({ ...recordedOn(made, settings), engine: made })),
    port,
  );
  await closed;
  await engine.then(
    (made) => made.close(),
    () => undefined,
  );
}

/** What an engine does whose rounding nobody has measured is not claimed, and so not recorded. */
function recordedOn({ id }: Engine, { recording, ...settings }: ReplicaSettings): ReplicaSettings {
  return recording && measuredEngines.includes(id) ? { ...settings, recording } : settings;
}
