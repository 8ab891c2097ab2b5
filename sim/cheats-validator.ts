/** Validators that do not vote, or vote twice: transports that drop or double what the honest replica says. */
import { noHash, statementDigest } from '../src/consensus/certificate.ts';
import { epochDomain } from '../src/consensus/epoch-end.ts';
import { decodeEnvelope, encodeEnvelope } from '../src/consensus/epoch-wire.ts';
import { defaultLimits } from '../src/consensus/limits.ts';
import { decodeMessage, encodeMessage, type Message } from '../src/consensus/messages.ts';
import { secp256k1Signatures } from '../src/consensus/signatures.ts';
import type { Transport } from '../src/net/transport.ts';
import { consensusTopic } from '../src/peer/chain-sync.ts';
import { equalBytes } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import type { CheatContext } from './cheats-context.ts';

interface Said {
  readonly epoch: number;
  /** What signatures of the epoch are over. */
  readonly domain: Uint8Array;
  readonly message: Message;
}

/** Says nothing that counts: no vote, no proposal. */
export function silentTransport({ honest, cheatsNow }: CheatContext): Transport {
  const { transport, network } = honest;
  return speaking(transport, async (bytes) => {
    const { type } = readSaid(bytes, network.networkId)?.message ?? {};
    if (!cheatsNow() || (type !== 'vote' && type !== 'proposal'))
      await transport.publish(consensusTopic, bytes);
  });
}

/** To every vote for a block another one, for a block that nobody has. */
export function equivocatingTransport({ honest, cheatsNow }: CheatContext): Transport {
  const { transport, network, key } = honest;
  return speaking(transport, async (bytes) => {
    await transport.publish(consensusTopic, bytes);
    const said = readSaid(bytes, network.networkId);
    if (!cheatsNow() || said?.message.type !== 'vote') return;
    const { vote } = said.message;
    if (vote.kind !== 'vote' || equalBytes(vote.blockHash, noHash)) return;
    const blockHash = sha256(vote.blockHash);
    const digest = statementDigest(said.domain, vote.kind, vote.height, blockHash);
    const other = { ...vote, blockHash, signature: secp256k1Signatures.sign(digest, key) };
    const message = encodeMessage({ type: 'vote', vote: other });
    await transport.publish(consensusTopic, encodeEnvelope(said.epoch, message));
  });
}

/** The transport with another way to speak of consensus. */
function speaking(transport: Transport, say: (bytes: Uint8Array) => Promise<void>): Transport {
  return {
    ...transport,
    publish: (topic, bytes) => (topic === consensusTopic ? say(bytes) : transport.publish(topic, bytes)),
  };
}

function readSaid(bytes: Uint8Array, networkId: Uint8Array): Said | undefined {
  const envelope = decodeEnvelope(bytes, defaultLimits);
  if (!envelope.ok) return undefined;
  const { epoch, message } = envelope.value;
  const domain = epochDomain(networkId, epoch);
  const decoded = decodeMessage(message, domain, defaultLimits);
  return decoded.ok ? { epoch, domain, message: decoded.value.message } : undefined;
}
