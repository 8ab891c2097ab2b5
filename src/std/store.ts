/** Durable key-value storage, handed in: files on a node, memory in tests and in the simulator. */

/** Copying more would keep a thread too long. */
export const copiedBytesMax = 1024 * 1024;

export interface Store {
  /** The last value put, or undefined. */
  get(key: string): Promise<Uint8Array | undefined>;
  /**
   * Durable and atomic when the promise resolves: after a crash the old or the new value is there, whole. The caller
   * may change the value afterwards; one above `copiedBytesMax` only once the promise has resolved.
   */
  put(key: string, value: Uint8Array): Promise<void>;
  delete(key: string): Promise<void>;
  /** Keys with the prefix, sorted. */
  list(prefix: string): Promise<readonly string[]>;
}

/** A store that lives as long as the object: the simulator keeps it across a node's crash. */
export function memoryStore(): Store {
  const values = new Map<string, Uint8Array>();
  return {
    get: async (key) => values.get(key)?.slice(),
    put: async (key, value) => void values.set(key, value.slice()),
    delete: async (key) => void values.delete(key),
    list: async (prefix) => [...values.keys()].filter((key) => key.startsWith(prefix)).sort(),
  };
}
