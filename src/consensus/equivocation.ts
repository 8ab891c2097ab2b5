/**
 * Evidence of equivocation in a form that a ledger can carry: two statements that one key signed and no honest member
 * makes, in some 300 bytes that name their epoch. Anybody can judge them, at any time, without the member list of that
 * epoch: an honest key never signs two such statements, whatever its place in the list.
 */
import { isPublicKey, nodeIdOf, publicKeyBytes, signatureBytes } from '../identity/keys.ts';
import { equalBytes } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { isHeight } from './block.ts';
import {
  noHash,
  type StatementKind,
  statementCode,
  statementDigest,
  statementKindOf,
} from './certificate.ts';
import { epochDomain, isEpoch } from './epoch-end.ts';
import type { Equivocation } from './epoch-types.ts';
import { readStatement, type Statement } from './evidence.ts';
import type { ConsensusLimits } from './limits.ts';
import type { MemberSet } from './members.ts';
import { secp256k1Signatures } from './signatures.ts';
import type { Evidence, Member, SignatureScheme } from './types.ts';

export const evidenceBytesMax = 512;

/** What was signed; the rest follows from the evidence around it. */
interface SignedPart {
  readonly kind: StatementKind;
  readonly hash: Uint8Array;
  readonly signature: Uint8Array;
}

interface EvidenceParts {
  readonly epoch: number;
  readonly publicKey: Uint8Array;
  readonly height: number;
  readonly first: SignedPart;
  readonly second: SignedPart;
}

/** `evidence` as a replica of the epoch reports it. */
export function encodeEvidence(
  evidence: Evidence,
  context: {
    readonly networkId: Uint8Array;
    readonly epoch: number;
    readonly members: MemberSet;
    readonly limits: ConsensusLimits;
  },
): Equivocation {
  const { networkId, epoch, members, limits } = context;
  const domain = epochDomain(networkId, epoch);
  const { kind, height } = evidence;
  const { nodeId, publicKey } = members.list[evidence.member]!;
  const parts = [evidence.first, evidence.second].map((message) => {
    const statement = readStatement(message, domain, members, limits);
    if (!statement.ok) throw new Error(`own evidence cannot be read: ${statement.code}`);
    return partBody(statement.value);
  });
  return { epoch, nodeId, kind, height, bytes: encodeCanonical([epoch, publicKey, height, ...parts]) };
}

function partBody({ kind, hash, signature }: Pick<Statement, 'kind' | 'hash' | 'signature'>): Canonical {
  return [statementCode(kind), kind === 'dummy' ? null : hash, signature];
}

/** Checks the form only. Codes: `schema`, `not-evidence` (the two may stand together), and those of decoding. */
export function decodeEvidence(bytes: Uint8Array): Outcome<Equivocation> {
  const parts = readParts(bytes);
  if (!parts.ok) return parts;
  const kind = contradiction(parts.value);
  if (!kind) return reject('not-evidence', 'nothing contradicts');
  const { epoch, publicKey, height } = parts.value;
  return accept({ epoch, nodeId: nodeIdOf(publicKey), kind, height, bytes });
}

/**
 * Whether the bytes prove that their key equivocated in this network. With `members` (of the epoch named) the key must
 * also be one of them. Codes: those of `decodeEvidence`, `unknown-member`, `bad-signature`.
 */
export function checkEvidence(
  bytes: Uint8Array,
  networkId: Uint8Array,
  options: { readonly members?: readonly Member[]; readonly signatures?: SignatureScheme } = {},
): Outcome<Equivocation> {
  const { members, signatures = secp256k1Signatures } = options;
  const parts = readParts(bytes);
  if (!parts.ok) return parts;
  const kind = contradiction(parts.value);
  if (!kind) return reject('not-evidence', 'nothing contradicts');
  const { epoch, publicKey, height, first, second } = parts.value;
  const nodeId = nodeIdOf(publicKey);
  if (members && !members.some((member) => member.nodeId === nodeId)) return reject('unknown-member', nodeId);
  const domain = epochDomain(networkId, epoch);
  for (const part of [first, second]) {
    const digest = statementDigest(domain, part.kind, height, part.hash);
    if (!signatures.verify(digest, part.signature, publicKey)) return reject('bad-signature', nodeId);
  }
  return accept({ epoch, nodeId, kind, height, bytes });
}

/** Why the two cannot both be an honest member's; undefined when they can. */
function contradiction({ first, second }: EvidenceParts): Evidence['kind'] | undefined {
  const kinds = [first.kind, second.kind];
  if (kinds.includes('finalize') && kinds.includes('dummy')) return 'finalize-and-dummy';
  if (first.kind !== second.kind || first.kind === 'dummy') return undefined;
  return equalBytes(first.hash, second.hash) ? undefined : first.kind;
}

function readParts(bytes: Uint8Array): Outcome<EvidenceParts> {
  const decoded = decodeCanonical(bytes, evidenceBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 5) return reject('schema', 'evidence');
  const [epoch, publicKey, height, one, other] = decoded.value as unknown[];
  if (!isEpoch(epoch) || !isHeight(height)) return reject('schema', 'evidence');
  if (!(publicKey instanceof Uint8Array) || publicKey.length !== publicKeyBytes || !isPublicKey(publicKey))
    return reject('schema', 'evidence key');
  const first = readPart(one);
  const second = readPart(other);
  if (!first || !second) return reject('schema', 'statement');
  return accept({ epoch, publicKey, height, first, second });
}

function readPart(value: unknown): SignedPart | undefined {
  if (!Array.isArray(value) || value.length !== 3) return undefined;
  const [code, hash, signature] = value as unknown[];
  const kind = statementKindOf(code);
  if (!kind || !(signature instanceof Uint8Array) || signature.length !== signatureBytes) return undefined;
  if (kind === 'dummy') return hash === null ? { kind, hash: noHash, signature } : undefined;
  return hash instanceof Uint8Array && hash.length === 32 ? { kind, hash, signature } : undefined;
}
