/**
 * A link between two nodes of this machine: a TCP relay on loopback with real sockets, that gives each direction a
 * delay, a rate and losses, and can stop in the middle. Nodes dial the relay's port in place of the node behind it, and
 * an address with `/p2p/…` stays true, since the relay passes on bytes as they are.
 *
 * TCP hides losses: a lost segment comes a round trip later, and all that was sent after it waits for it. That is what
 * `loss` does here. TCP's slowing down after losses is not emulated: set the rate that would be left. As on a real host,
 * what the sender's kernel takes ahead of the link (some MiB at most) waits in front of it.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';

export interface LinkOptions {
  /** One way, in milliseconds. */
  readonly delayMs: number;
  /** Without it, as fast as loopback. */
  readonly bitsPerSecond?: number;
  /** Of segments of 1460 bytes, in [0, 1). */
  readonly loss?: number;
}

export interface LinkRelayOptions {
  readonly targetPort: number;
  /** From who dials to the node behind the relay. */
  readonly there: LinkOptions;
  readonly back: LinkOptions;
  /** Uniform in [0, 1). */
  readonly uniform?: () => number;
}

export interface LinkRelay {
  readonly port: number;
  /** `/ip4/127.0.0.1/tcp/PORT`, with the rest of the address that the node behind the relay gave. */
  addressOf(address: string): string;
  /** From now on; what is on its way keeps its time. */
  change(there: LinkOptions, back: LinkOptions): void;
  /** Nothing is read or passed on until `resume`, and no connection breaks: what `kill -STOP` of the node looks like. */
  stall(): void;
  resume(): void;
  /** Breaks all connections; new ones may come. */
  cut(): void;
  bytesPassed(): { readonly there: number; readonly back: number };
  close(): Promise<void>;
}

const segmentBytes = 1460;
const pieceBytesMax = 16 * 1024;
/** What waits for its turn on the link; with more the sender is not read. */
const queueBytesMax = 128 * 1024;
const fullLinkMs = 2;

/** One direction of one connection. */
interface Direction {
  readonly from: Socket;
  readonly to: Socket;
  readonly link: () => LinkOptions;
  readonly roundTripMs: () => number;
  readonly passed: (bytes: number) => void;
  /** On the link, in order; `bytes` is null where the sender ended. */
  readonly onWay: {
    readonly bytes: Buffer | null;
    readonly leavesAtMs: number;
    readonly arrivesAtMs: number;
  }[];
  freeAtMs: number;
  lastArrivalMs: number;
  timer: NodeJS.Timeout | undefined;
}

interface Relay {
  readonly options: LinkRelayOptions;
  readonly uniform: () => number;
  readonly directions: Set<Direction>;
  isStalled: boolean;
}

export async function startLinkRelay(options: LinkRelayOptions): Promise<LinkRelay> {
  const relay: Relay = {
    options,
    uniform: options.uniform ?? Math.random,
    directions: new Set(),
    isStalled: false,
  };
  let { there, back } = options;
  const passed = { there: 0, back: 0 };
  const server = createServer({ noDelay: true, pauseOnConnect: true }, (dialler) => {
    const behind = connect({ port: options.targetPort, host: '127.0.0.1', noDelay: true });
    const roundTripMs = () => there.delayMs + back.delayMs;
    const ways = [
      { from: dialler, to: behind, link: () => there, name: 'there' },
      { from: behind, to: dialler, link: () => back, name: 'back' },
    ] as const;
    for (const { from, to, link, name } of ways) {
      const count = (bytes: number) => {
        passed[name] += bytes;
      };
      runDirection(relay, from, to, link, roundTripMs, count);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const cut = () => {
    for (const { from } of [...relay.directions]) from.destroy();
  };
  return {
    port,
    addressOf: (address) => address.replace(/\/tcp\/\d+/, `/tcp/${port}`),
    change(nextThere, nextBack) {
      there = nextThere;
      back = nextBack;
    },
    stall() {
      relay.isStalled = true;
      for (const direction of relay.directions) direction.from.pause();
    },
    resume() {
      relay.isStalled = false;
      for (const direction of relay.directions) pump(relay, direction);
    },
    cut,
    bytesPassed: () => ({ ...passed }),
    async close() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function runDirection(
  relay: Relay,
  from: Socket,
  to: Socket,
  link: Direction['link'],
  roundTripMs: Direction['roundTripMs'],
  passed: Direction['passed'],
): void {
  const direction: Direction = {
    from,
    to,
    link,
    roundTripMs,
    passed,
    onWay: [],
    freeAtMs: 0,
    lastArrivalMs: 0,
    timer: undefined,
  };
  relay.directions.add(direction);
  // Not read until the first look at the link.
  from.pause();
  from.on('data', (bytes) => {
    for (let at = 0; at < bytes.length; at += pieceBytesMax) {
      send(relay, direction, bytes.subarray(at, at + pieceBytesMax));
    }
    pump(relay, direction);
  });
  // A reset looks like an end to the other side, and comes after what was sent before it.
  from.on('error', () => {});
  from.on('close', () => {
    send(relay, direction, null);
    pump(relay, direction);
  });
  to.on('drain', () => pump(relay, direction));
  to.on('close', () => {
    relay.directions.delete(direction);
    clearTimeout(direction.timer);
  });
  pump(relay, direction);
}

/** Gives a piece its place on the link. */
function send(relay: Relay, direction: Direction, bytes: Buffer | null): void {
  const { delayMs, bitsPerSecond, loss = 0 } = direction.link();
  const nowMs = performance.now();
  const ownMs = bitsPerSecond && bytes ? (bytes.length * 8_000) / bitsPerSecond : 0;
  const leavesAtMs = Math.max(nowMs, direction.freeAtMs) + ownMs;
  direction.freeAtMs = leavesAtMs;
  const tries = bytes ? retransmissions(relay.uniform(), loss, Math.ceil(bytes.length / segmentBytes)) : 0;
  const ownArrivalMs = leavesAtMs + delayMs + tries * direction.roundTripMs();
  // In order: what comes after a lost segment waits for it.
  const arrivesAtMs = Math.max(ownArrivalMs, direction.lastArrivalMs);
  direction.lastArrivalMs = arrivesAtMs;
  direction.onWay.push({ bytes, leavesAtMs, arrivesAtMs });
}

/** How often the unluckiest of `segments` is sent again: at most k with probability (1 - loss^(k+1))^segments. */
export function retransmissions(uniform: number, loss: number, segments: number): number {
  let tries = 0;
  while (tries < 20 && uniform >= (1 - loss ** (tries + 1)) ** segments) tries += 1;
  return tries;
}

/** Passes on what has arrived, and reads on while there is room. */
function pump(relay: Relay, direction: Direction): void {
  const { from, to, onWay } = direction;
  clearTimeout(direction.timer);
  if (relay.isStalled || to.destroyed) return;
  const nowMs = performance.now();
  while (onWay.length > 0 && onWay[0]!.arrivesAtMs <= nowMs && !to.writableNeedDrain) {
    const { bytes } = onWay.shift()!;
    if (bytes === null) {
      to.destroySoon();
      return;
    }
    direction.passed(bytes.length);
    to.write(bytes);
  }
  const isFull = waitingBytes(direction, nowMs) > queueBytesMax;
  if (isFull) from.pause();
  else if (from.isPaused() && !from.destroyed) from.resume();
  const next = onWay[0];
  if (!next || to.writableNeedDrain) return;
  // A full link is looked at again when a piece or so has left, else when the next one arrives.
  const untilMs = Math.min(next.arrivesAtMs - nowMs, isFull ? fullLinkMs : Number.POSITIVE_INFINITY);
  direction.timer = setTimeout(() => pump(relay, direction), Math.max(1, untilMs));
}

function waitingBytes({ onWay }: Direction, nowMs: number): number {
  let bytes = 0;
  for (let i = onWay.length - 1; i >= 0 && onWay[i]!.leavesAtMs > nowMs; i--) {
    bytes += onWay[i]!.bytes?.length ?? 0;
  }
  return bytes;
}
