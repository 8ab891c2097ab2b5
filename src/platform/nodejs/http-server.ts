/** A fetch handler on a TCP port. Loopback unless told otherwise; ends with its last connection cut, not waited for. */
import { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { assert } from '../../std/assert.ts';
import { CodedError } from '../../std/outcome.ts';

export interface HttpServerOptions {
  readonly fetch: (request: Request) => Response | Promise<Response>;
  /** 0 takes any free one. */
  readonly port: number;
  readonly host?: string;
  /** A connection whose reader takes nothing of what waits for it for so long is cut. */
  readonly stallMsMax?: number;
}

export interface HttpServer {
  readonly host: string;
  readonly port: number;
  readonly url: string;
  close(): Promise<void>;
}

const connectionsMax = 256;
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 60_000;
const stallMsMaxDefault = 60_000;

/** Throws CodedError `port-in-use`, `permission-denied` or `bad-address`. */
export async function startHttpServer({
  fetch,
  port,
  host = '127.0.0.1',
  stallMsMax = stallMsMaxDefault,
}: HttpServerOptions): Promise<HttpServer> {
  const server = createAdaptorServer({ fetch });
  assert(server instanceof Server, 'the adaptor makes an HTTP/1 server');
  server.maxConnections = connectionsMax;
  server.headersTimeout = headersTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  server.on('request', ({ socket }, response) => {
    // An answer that is still being made may be silent for as long as it likes.
    response.setTimeout(stallMsMax, () => {
      if (socket.writableLength > 0) socket.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
    server.listen(port, host, resolve);
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    host,
    port: taken,
    url: `http://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): CodedError {
  const where = `port ${port} on ${host}`;
  const options = { cause: error };
  if (error.code === 'EADDRINUSE')
    return new CodedError('port-in-use', `${where} is in use: choose another`, options);
  if (error.code === 'EACCES')
    return new CodedError('permission-denied', `${where} needs more rights: choose one above 1023`, options);
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND') {
    return new CodedError('bad-address', `${host} is no address of this machine`, options);
  }
  return new CodedError('cannot-listen', `cannot listen on ${where}: ${error.message}`, options);
}
