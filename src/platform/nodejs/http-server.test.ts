import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { startHttpServer } from './http-server.ts';

const fetchHandler = (request: Request) => new Response(`${request.method} ${new URL(request.url).pathname}`);

test('serves on loopback, and an occupied port is one clear error', async (t) => {
  const server = await startHttpServer({ fetch: fetchHandler, port: 0 });
  t.after(() => server.close());
  assert.equal(server.host, '127.0.0.1');
  assert.equal(await (await fetch(`${server.url}/hello`)).text(), 'GET /hello');
  await assert.rejects(startHttpServer({ fetch: fetchHandler, port: server.port }), {
    code: 'port-in-use',
    message: `port ${server.port} on 127.0.0.1 is in use: choose another`,
  });
});

test('an address that is not ours is refused', async () => {
  // TEST-NET-1 of RFC 5737: no machine has it.
  await assert.rejects(startHttpServer({ fetch: fetchHandler, port: 0, host: '192.0.2.1' }), {
    code: 'bad-address',
  });
});

test('closing cuts a response that never ends', async () => {
  const endless = () =>
    new Response(new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(10)) }));
  const server = await startHttpServer({ fetch: endless, port: 0 });
  const reader = (await fetch(server.url)).body!.getReader();
  await reader.read();
  await server.close();
  await assert.rejects(reader.read());
});

test('a reader that takes nothing is cut; an answer that is slow to come is not', async (t) => {
  const cut = Promise.withResolvers<void>();
  const endless = () =>
    new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(new Uint8Array(1 << 16)),
        cancel: () => cut.resolve(),
      }),
    );
  const slow = async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    return new Response('at last');
  };
  const fetchEither = (request: Request) => (request.url.endsWith('/slow') ? slow() : endless());
  const server = await startHttpServer({ fetch: fetchEither, port: 0, stallMsMax: 50 });
  t.after(() => server.close());
  const socket = connect(server.port, server.host);
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  socket.pause();
  await cut.promise;
  assert.equal(await (await fetch(`${server.url}/slow`)).text(), 'at last');
});
