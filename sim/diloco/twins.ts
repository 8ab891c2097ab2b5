/**
 * Two nodes behind one key: a transport cut in two, each half of which talks to one side of the network and, by a
 * channel that nobody sees, to the same half of other twins. What honest code does on both halves is, seen together,
 * every equivocation there is: two votes, two contributions, two statements, two states.
 */
import type { Protocol } from '../../src/net/protocol.ts';
import type { NodeId, RequestHandler, TopicHandler, Transport } from '../../src/net/transport.ts';
import { sleep } from '../../src/std/clock.ts';
import { reject } from '../../src/std/outcome.ts';
import type { NodeEnv } from '../cluster.ts';

interface Half {
  readonly topics: Map<string, Set<TopicHandler>>;
  readonly handlers: Map<string, RequestHandler>;
}

/** Where twins of one cluster find each other: for each side, the halves by node id. */
export type TwinChannel = readonly Map<NodeId, Half>[];

export function createTwinChannel(sides: number): TwinChannel {
  return Array.from({ length: sides }, () => new Map<NodeId, Half>());
}

const channelMs = 10;

/** One transport for each side; every node of the network but the twins is on exactly one. */
export function splitTransport(
  env: NodeEnv,
  sides: readonly (readonly NodeId[])[],
  channel: TwinChannel,
): Transport[] {
  const whole = env.transport;
  const halves: Half[] = sides.map(() => ({ topics: new Map(), handlers: new Map() }));
  for (const [i, half] of halves.entries()) channel[i]!.set(whole.self, half);
  const sideOf = (node: NodeId) => sides.findIndex((side) => side.includes(node));

  const dispatched = new Set<string>();
  const dispatch = (protocol: Protocol) => {
    if (dispatched.has(protocol.id)) return;
    dispatched.add(protocol.id);
    whole.handle(protocol, async (from, body, signal, progress) => {
      const handler = halves[sideOf(from)]?.handlers.get(protocol.id);
      return handler ? handler(from, body, signal, progress) : reject('failed');
    });
  };

  return sides.map((side, i) => {
    const half = halves[i]!;
    const others = () => [...channel[i]!].filter(([node]) => node !== whole.self);
    const isNear = (node: NodeId) => side.includes(node);
    return {
      ...whole,
      async publish(topic, message) {
        env.publishTo(side, topic, message);
        for (const [, other] of others()) {
          env.clock.setTimer(channelMs, () => {
            for (const handler of other.topics.get(topic) ?? []) handler(whole.self, message);
          });
        }
      },
      subscribe(topic, bytesMax, handler) {
        half.topics.set(topic, (half.topics.get(topic) ?? new Set()).add(handler));
        return whole.subscribe(topic, bytesMax, (from, message) =>
          isNear(from) ? handler(from, message) : undefined,
        );
      },
      async request(peer, protocol, body, signal, onFrame) {
        if (isNear(peer)) return whole.request(peer, protocol, body, signal, onFrame);
        await sleep(env.clock, channelMs);
        const handler = channel[i]!.get(peer)?.handlers.get(protocol.id);
        return handler
          ? handler(whole.self, body, signal ?? new AbortController().signal, onFrame ?? (() => {}))
          : reject('unreachable');
      },
      handle(protocol, handler) {
        half.handlers.set(protocol.id, handler);
        dispatch(protocol);
        return () => void half.handlers.delete(protocol.id);
      },
      peers: () => [...whole.peers().filter(isNear), ...others().map(([node]) => node)],
      onPeerChange: (listener) =>
        whole.onPeerChange((peer, connected) => isNear(peer) && listener(peer, connected)),
      penalize() {},
    };
  });
}
