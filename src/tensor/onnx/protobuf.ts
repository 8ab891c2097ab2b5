/**
 * The part of the protobuf wire format that writing an ONNX model needs: varints, floats, and length-delimited
 * fields. It knows nothing of ONNX. Source: https://protobuf.dev/programming-guides/encoding/
 */
import { concatBytes, utf8 } from '../../std/bytes.ts';

const wireVarint = 0;
const wireBytes = 2;
const wireFloat = 5;

/** Base-128 varint of a safe integer; negatives take ten bytes in two's complement, as int64 demands. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return bytes;
}

/** One message under construction; fields appear in the order they are added. */
export class MessageWriter {
  readonly #parts: Uint8Array[] = [];

  #tag(field: number, wire: number): void {
    this.#parts.push(Uint8Array.from(varint(field * 8 + wire)));
  }

  int(field: number, value: number): this {
    this.#tag(field, wireVarint);
    this.#parts.push(Uint8Array.from(varint(value)));
    return this;
  }

  float(field: number, value: number): this {
    this.#tag(field, wireFloat);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#parts.push(bytes);
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.#tag(field, wireBytes);
    this.#parts.push(Uint8Array.from(varint(value.length)), value);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, utf8(value));
  }

  message(field: number, value: MessageWriter): this {
    return this.bytes(field, value.finish());
  }

  finish(): Uint8Array {
    return concatBytes(...this.#parts);
  }
}
