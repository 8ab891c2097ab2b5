import assert from 'node:assert/strict';
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
