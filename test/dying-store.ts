/** A store of a process that is killed in the middle of its writes: for tests of what a restart finds. */
import type { Store } from '../src/std/store.ts';

/** Takes `writes` more writes and then neither writes nor answers, as a process that has been killed. */
export function dyingStore(inner: Store, writes: number, died: () => void): Store {
  let left = writes;
  const gate = async (write: () => Promise<void>) => {
    if (left-- > 0) return write();
    died();
    return new Promise<void>(() => {});
  };
  return {
    ...inner,
    put: (key, value) => gate(() => inner.put(key, value)),
    delete: (key) => gate(() => inner.delete(key)),
  };
}
