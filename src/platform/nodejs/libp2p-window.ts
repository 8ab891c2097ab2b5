/**
 * How often a stream tells its sender that there is room again. libp2p's yamux says so after every message, which costs
 * both sides as much as a small message does; here it is said when some have come together. Bulk is as it was, so that
 * windows grow as fast. Knows nothing of what the bytes are.
 */
import { StreamState, YamuxStream } from '@libp2p/yamux/stream';

/** Beneath its interface. */
interface Window {
  /** Bytes the sender may have under way when the window is fresh. */
  readonly recvWindow: number;
  /** Bytes the sender may still send. */
  readonly recvWindowCapacity: number;
}

/** Room from which on it is told: a quarter of the narrowest window. Pieces of large messages are larger. */
const toldBytesMin = 64 * 1024;

/** Replaces the stream's method; streams of another multiplexer stay as they are. */
export function spareWindowUpdates(stream: unknown): void {
  if (!(stream instanceof YamuxStream)) return;
  const window = stream as unknown as Window;
  const update = stream.sendWindowUpdate.bind(stream);
  stream.sendWindowUpdate = () => {
    const room = window.recvWindow - window.recvWindowCapacity;
    // Before it is established, an update carries the flags that open the stream.
    if (room >= toldBytesMin || stream.state !== StreamState.Established) update();
  };
}
