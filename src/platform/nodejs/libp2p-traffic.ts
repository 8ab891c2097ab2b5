/**
 * Counts the bytes that libp2p's connections write to and read from their sockets: everything above TCP, with the
 * overheads of encryption, multiplexing, gossip and handshakes. Relayed connections run inside counted ones and are
 * left out; datagrams (mdns, UPnP) are not seen. On the way each connection is given its pace.
 */
import type { Metrics, MultiaddrConnection } from '@libp2p/interface';
import type { Traffic } from '../../net/transport.ts';
import { createTurnBudget, paceSocket, type SocketConnection } from './libp2p-pace.ts';

export interface TrafficMeter {
  /** Handed to libp2p, which shows it every connection; all other metrics are dropped. */
  readonly metrics: Metrics;
  read(): Traffic;
}

export function createTrafficMeter(): TrafficMeter {
  let bytesSent = 0;
  let bytesReceived = 0;
  const budget = createTurnBudget();

  function track(connection: MultiaddrConnection): void {
    if (connection.remoteAddr.toString().includes('/p2p-circuit')) return;
    const socket = connection as unknown as SocketConnection;
    paceSocket(socket, budget);
    const sendData = socket.sendData.bind(socket);
    const onData = socket.onData.bind(socket);
    bytesReceived += socket.readBufferLength;
    socket.sendData = (data) => {
      const result = sendData(data);
      bytesSent += result.sentBytes;
      return result;
    };
    socket.onData = (data) => {
      bytesReceived += data.byteLength;
      onData(data);
    };
  }

  return { metrics: quietMetrics(track), read: () => ({ bytesSent, bytesReceived }) };
}

/** libp2p's metrics interface with nothing behind it but `trackMultiaddrConnection`. */
function quietMetrics(trackMultiaddrConnection: (connection: MultiaddrConnection) => void): Metrics {
  const nothing = () => {};
  const timer = () => nothing;
  const metric = {
    update: nothing,
    increment: nothing,
    decrement: nothing,
    observe: nothing,
    reset: nothing,
    timer,
  };
  const register = () => metric;
  return {
    trackMultiaddrConnection,
    trackProtocolStream: nothing,
    registerMetric: register,
    registerMetricGroup: register,
    registerCounter: register,
    registerCounterGroup: register,
    registerHistogram: register,
    registerHistogramGroup: register,
    registerSummary: register,
    registerSummaryGroup: register,
    traceFunction: (_name: string, traced: unknown) => traced,
    createTrace: nothing,
  } as unknown as Metrics;
}
