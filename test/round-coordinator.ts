/**
 * One node's round coordinator among nodes that a test moves, with its replica of consensus replaced by the test's own
 * questions.
 */
import assert from 'node:assert/strict';
import type { DecidedBlock, ProposalContext } from '../src/consensus/types.ts';
import { type BlobShelf, createBlobShelf, serveBlobs } from '../src/diloco/blob-exchange.ts';
import type { Contribution } from '../src/diloco/replica.ts';
import { createRoundCoordinator } from '../src/diloco/round.ts';
import { drawRoundList, encodeRoundList } from '../src/diloco/round-list.ts';
import type { RoundOptions } from '../src/diloco/round-state.ts';
import { type Announcement, contributionTopic, encodeAnnouncement } from '../src/ledger/announcement.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256Hex } from '../src/std/hash.ts';
import { memoryStore } from '../src/std/store.ts';
import {
  announced,
  blobOf,
  createVirtualNetwork,
  networkId,
  screeningReplica,
  shape,
  testBase,
} from './virtual-network.ts';

export const nextBase = sha256Hex(utf8('next base'));
export const never = new AbortController().signal;
export const context = (undecided: readonly Uint8Array[] = []): ProposalContext => ({
  height: 1,
  undecided,
  signal: never,
});
export const block = (payload: Uint8Array): DecidedBlock => ({
  block: { height: 1, parentHeight: 0, parentHash: new Uint8Array(32), payload },
  hash: new Uint8Array(32),
});

export const nobody: ReadonlyMap<string, number> = new Map();
export const draw = (round: number, announcements: readonly Announcement[]) =>
  drawRoundList({ round, announcements, stages: 1, members: nobody });

/** Node 0 coordinates; all `members` first nodes are members. */
export function coordinatorOf(count = 4, members = count, staged: Partial<RoundOptions> = {}) {
  const network = createVirtualNetwork(count);
  const { keys, ids, transports } = network;
  let wakes = 0;
  const refused: string[] = [];
  const shelves = transports.map((transport) => {
    const shelf = createBlobShelf(memoryStore());
    serveBlobs(transport, shelf);
    return shelf;
  });
  const coordinator = createRoundCoordinator({
    networkId,
    key: keys[0]!,
    stage: 0,
    shapes: [shape],
    members: new Map(ids.slice(0, members).map((id) => [id, 0])),
    agreedBase: () => undefined,
    transport: transports[0]!,
    clock: network.clock,
    replica: screeningReplica,
    shelf: shelves[0]!,
    batchesMax: 20,
    wake: () => void wakes++,
    onKeepFailed: assert.ifError,
    onRejected: (_round, node, code) => void refused.push(`${ids.indexOf(node)} ${code}`),
    ...staged,
  });
  const { application } = coordinator;
  const asked = askedOf(network);
  return {
    ...network,
    network,
    coordinator,
    application,
    ...contributorsOf(network, shelves),
    validate: (payload: Uint8Array, undecided: readonly Uint8Array[] = []) =>
      asked(application.validate(payload, context(undecided))),
    asked,
    woken: () => {
      const count = wakes;
      wakes = 0;
      return count > 0;
    },
    here: () =>
      coordinator
        .contributions()
        .map(({ nodeId }) => ids.indexOf(nodeId))
        .sort(),
    refused,
    shelves,
  };
}

type Network = ReturnType<typeof createVirtualNetwork>;

function askedOf({ clock }: Network) {
  return async <T>(work: Promise<T>, ms = 60_000): Promise<T | 'waiting'> => {
    let result: { value: T } | undefined;
    void work.then((value) => (result = { value }));
    await clock.run(clock.nowMs() + ms, () => result !== undefined);
    return result ? result.value : 'waiting';
  };
}

/** What the nodes give, one by one or in a list. */
function contributorsOf({ keys, transports }: Network, shelves: readonly BlobShelf[]) {
  return {
    /** As node `index` does it: on the shelf, then on the topic. */
    contribute: (index: number, one: Contribution = blobOf(index + 1), as = {}) => {
      shelves[index]!.put(0, one.blobHash, one.blob);
      return transports[index]!.publish(
        contributionTopic,
        encodeAnnouncement(announced(keys[index]!, one, as)),
      );
    },
    /** The list of these nodes' contributions, whose blobs they have. */
    listOf: (indices: readonly number[], as: { round?: number; base?: string } = {}) => {
      const { round = 0, base = testBase } = as;
      const all = indices.map((index) => {
        const one = blobOf(index + 1);
        shelves[index]!.put(round, one.blobHash, one.blob);
        return announced(keys[index]!, one, { round, base });
      });
      return encodeRoundList(draw(round, all));
    },
  };
}
