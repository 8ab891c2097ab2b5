/** What every `Store` must do, run against each implementation by its own test. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Store } from '../src/std/store.ts';

const key = fc.string({ unit: 'binary', maxLength: 20 });
const bytes = fc.uint8Array({ maxLength: 64 });

/** `open` gives an empty store. */
export function testStoreContract(name: string, open: () => Promise<Store>): void {
  testOperations(name, open);
  testAgainstMap(name, open);
}

function testOperations(name: string, open: () => Promise<Store>): void {
  test(`${name}: what was put is there until it is deleted`, async () => {
    const store = await open();
    assert.equal(await store.get('a'), undefined);
    await store.put('a', new Uint8Array([1]));
    await store.put('a', new Uint8Array([2, 3]));
    assert.deepEqual(await store.get('a'), new Uint8Array([2, 3]));
    await store.put('empty', new Uint8Array());
    assert.deepEqual(await store.get('empty'), new Uint8Array());
    await store.delete('a');
    await store.delete('never-there');
    assert.equal(await store.get('a'), undefined);
  });

  test(`${name}: a value is a copy, both ways`, async () => {
    const store = await open();
    const value = new Uint8Array([1, 2]);
    const stored = store.put('k', value);
    value[0] = 9;
    await stored;
    const got = await store.get('k');
    assert.deepEqual(got, new Uint8Array([1, 2]));
    if (got) got[1] = 9;
    assert.deepEqual(await store.get('k'), new Uint8Array([1, 2]));
  });

  test(`${name}: keys are listed by prefix, sorted, whatever characters they hold`, async () => {
    const store = await open();
    const keys = ['vote/2', 'vote/10', 'VOTE/2', 'Vote/2', 'decision/é', '../escape', 'a.b', 'vote', ''];
    for (const [index, each] of keys.entries()) await store.put(each, new Uint8Array([index]));
    assert.deepEqual(await store.list('vote/'), ['vote/10', 'vote/2']);
    assert.deepEqual(await store.list(''), [...keys].sort());
    for (const [index, each] of keys.entries())
      assert.deepEqual(await store.get(each), new Uint8Array([index]));
  });

  test(`${name}: operations on one key take effect in the order they were asked for`, async () => {
    const store = await open();
    const writes = Array.from({ length: 10 }, (_, index) => store.put('k', new Uint8Array([index])));
    const read = store.get('k');
    const removal = store.delete('k');
    const last = store.put('k', new Uint8Array([99]));
    await Promise.all([...writes, removal, last]);
    assert.deepEqual(await read, new Uint8Array([9]));
    assert.deepEqual(await store.get('k'), new Uint8Array([99]));
  });
}

function testAgainstMap(name: string, open: () => Promise<Store>): void {
  test(`${name}: behaves like a map`, async () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), key, value: bytes }),
      fc.record({ kind: fc.constant('delete' as const), key }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const store = await open();
        const model = new Map<string, Uint8Array>();
        for (const each of operations) {
          if (each.kind === 'put') {
            model.set(each.key, each.value);
            await store.put(each.key, each.value);
          } else {
            model.delete(each.key);
            await store.delete(each.key);
          }
        }
        assert.deepEqual(await store.list(''), [...model.keys()].sort());
        for (const [name_, value] of model) assert.deepEqual(await store.get(name_), value);
      }),
      { numRuns: 15 },
    );
  });
}
