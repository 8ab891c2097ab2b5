/**
 * How often a stream tells its sender that there is room again. libp2p's yamux says so after every message, which costs
 * both sides as much as a small message does; here it is said when half of the window is used, as other implementations of
 * yamux do. Knows nothing of what the bytes are.
 */
import { StreamState, YamuxStream } from '@libp2p/yamux/stream';

/** Beneath its interface. */
interface Window {
  /** Bytes the sender may have under way when the window is fresh. */
  readonly recvWindow: number;
  /** Bytes the sender may still send. */
  readonly recvWindowCapacity: number;
}

/** Replaces the stream's method; streams of another multiplexer stay as they are. */
export function spareWindowUpdates(stream: unknown): void {
  if (!(stream instanceof YamuxStream)) return;
  const window = stream as unknown as Window;
  const update = stream.sendWindowUpdate.bind(stream);
  stream.sendWindowUpdate = () => {
    const isHalfUsed = 2 * window.recvWindowCapacity <= window.recvWindow;
    // Before it is established, an update carries the flags that open the stream.
    if (isHalfUsed || stream.state !== StreamState.Established) update();
  };
}
