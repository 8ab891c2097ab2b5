/** What readers read from and what they give: bytes that can be read again, and documents. */

export interface Document {
  readonly id: string;
  readonly text: string;
  /** The next document continues this one: a long text comes in pieces. */
  readonly continued?: boolean;
}

/** Bytes that can be read from the start, any number of times, or at any place. */
export interface ByteSource {
  /** A file name or an address; errors and the manifest call it so. */
  readonly name: string;
  /** From the first byte on; each chunk is the reader's to keep. */
  stream(): AsyncIterable<Uint8Array>;
  byteLength(): Promise<number>;
  /** The bytes in [start, end), all of them. */
  read(start: number, end: number): Promise<Uint8Array>;
}
