/**
 * Noise without an exception for every message. libp2p's reader asks for the next message's length when it has read all
 * there is, and learns from an exception that there is none: a sixth of a small request's time. What is asked here answers
 * with a length that has not come yet. Knows nothing of keys and handshakes.
 */
import { noise } from '@libp2p/noise';

/** Longer than any message (65,535 bytes), shorter than what the reader takes for an attack (4 MiB). */
const notYet = 1024 * 1024;

interface Bytes {
  readonly byteLength: number;
  getUint16(offset: number): number;
}

interface Decoder {
  lengthDecoder: (bytes: Bytes) => number;
}

export function patientNoise(): ReturnType<typeof noise> {
  return (components) => {
    const encrypter = noise()(components);
    const { secureOutbound, secureInbound } = encrypter;
    encrypter.secureOutbound = async (connection, options) =>
      patient(await secureOutbound.call(encrypter, connection, options));
    encrypter.secureInbound = async (connection, options) =>
      patient(await secureInbound.call(encrypter, connection, options));
    return encrypter;
  };
}

/** The encrypted connection with another way to read lengths; one without a reader of this kind stays as it is. */
function patient<Secured extends { readonly connection: object }>(secured: Secured): Secured {
  const { decoder } = secured.connection as { readonly decoder?: Decoder };
  if (typeof decoder?.lengthDecoder === 'function')
    decoder.lengthDecoder = (bytes) => (bytes.byteLength < 2 ? notYet : bytes.getUint16(0));
  return secured;
}
