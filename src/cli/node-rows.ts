/** Where a node keeps the rows of its stage's recent rounds: on its disk, if others are to make its steps again. */
import { join } from 'node:path';
import { measuredEngines } from '../audit/tolerance.ts';
import type { StageReplica } from '../diloco/replica.ts';
import type { EventSink } from '../peer/events.ts';
import type { RowStore } from '../pipeline/row-store.ts';
import { openRowFiles } from '../platform/nodejs/row-files.ts';
import type { Clock } from '../std/clock.ts';

export interface NodeRowsOptions {
  /** Of the node. */
  readonly directory: string;
  readonly replica: Pick<StageReplica, 'info'>;
  readonly clock: Clock;
  readonly events: EventSink;
}

/** Undefined for a model held whole, and on an engine whose work nobody audits. */
export async function openNodeRows({
  directory,
  replica,
  clock,
  events,
}: NodeRowsOptions): Promise<RowStore | undefined> {
  const { engineId, stage } = await replica.info();
  if (stage.count === 1 || !measuredEngines.includes(engineId)) return undefined;
  return openRowFiles(join(directory, 'rows'), {
    clock,
    onIncomplete: (round, { message }) => {
      const detail = `no work of round ${round} can be claimed: ${message}`;
      events({ type: 'warning', code: 'rows-not-kept', detail });
    },
  });
}
