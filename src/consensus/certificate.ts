/**
 * Votes and certificates: what is signed, and when a set of votes proves a quorum. A certificate names its signers by
 * a bitmap over the member list, so a signer cannot be counted twice. Stateless.
 */

import { signatureBytes } from '../identity/keys.ts';
import { bodyHash } from '../identity/signed.ts';
import { concatBytes } from '../std/bytes.ts';
import type { Canonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { isQuorum, type MemberSet } from './members.ts';
import type { Certificate, SignatureScheme, VoteKind } from './types.ts';

const voteTag = 'neuroshard/consensus/vote/1';

/** On the wire; a leader's signature on its block is a statement of its own. */
const statementCodes = { vote: 0, dummy: 1, finalize: 2, proposal: 3 } as const;
const statementKinds = ['vote', 'dummy', 'finalize', 'proposal'] as const;
const voteKinds: readonly VoteKind[] = ['vote', 'dummy', 'finalize'];

export type StatementKind = (typeof statementKinds)[number];

export const noHash: Uint8Array = new Uint8Array(32);

export function voteKindOf(code: unknown): VoteKind | undefined {
  return typeof code === 'number' ? voteKinds[code] : undefined;
}

export function statementKindOf(code: unknown): StatementKind | undefined {
  return typeof code === 'number' ? statementKinds[code] : undefined;
}

export function statementCode(kind: StatementKind): number {
  return statementCodes[kind];
}

export function voteCode(kind: VoteKind): number {
  return statementCodes[kind];
}

/** The 32-byte digest that a member signs. `hash` is `noHash` for a dummy vote. */
export function statementDigest(
  networkId: Uint8Array,
  kind: StatementKind,
  height: number,
  hash: Uint8Array,
): Uint8Array {
  return bodyHash(voteTag, [networkId, statementCodes[kind], height, hash]);
}

/** `votes`: member index → signature, all for the same kind, height and block. */
export function makeCertificate(
  kind: VoteKind,
  height: number,
  hash: Uint8Array,
  votes: ReadonlyMap<number, Uint8Array>,
): Certificate {
  const signers = [...votes.keys()].sort((a, b) => a - b);
  return { kind, height, blockHash: hash, signers, signatures: signers.map((signer) => votes.get(signer)!) };
}

/**
 * Whether more than 2/3 of the weight signed. `known` tells of signatures already verified, which saves time only.
 * Codes: `no-quorum`, `unknown-member`, `bad-signature`.
 */
export function verifyCertificate(
  certificate: Certificate,
  networkId: Uint8Array,
  members: MemberSet,
  signatures: SignatureScheme,
  known: (signer: number, signature: Uint8Array) => boolean = () => false,
): Outcome<void> {
  const { kind, height, blockHash, signers } = certificate;
  if (signers.length !== certificate.signatures.length)
    return reject('schema', 'signers and signatures differ');
  let weight = 0;
  let previous = -1;
  for (const signer of signers) {
    const member = members.list[signer];
    if (!member) return reject('unknown-member', `${signer}`);
    if (signer <= previous) return reject('duplicate-signer', `${signer}`);
    previous = signer;
    weight += member.weight;
  }
  if (!isQuorum(members, weight)) return reject('no-quorum', `weight ${weight} of ${members.weight}`);
  const digest = statementDigest(networkId, kind, height, blockHash);
  for (const [i, signer] of signers.entries()) {
    const signature = certificate.signatures[i]!;
    if (known(signer, signature)) continue;
    if (!signatures.verify(digest, signature, members.list[signer]!.publicKey)) {
      return reject('bad-signature', `certificate, member ${signer}`);
    }
  }
  return accept(undefined);
}

export function certificateBody(certificate: Certificate): Canonical {
  const { kind, height, blockHash, signers, signatures } = certificate;
  const bitmap = new Uint8Array(((signers.at(-1) ?? 0) >> 3) + 1);
  for (const signer of signers) bitmap[signer >> 3]! |= 1 << (signer & 7);
  return [voteCode(kind), height, kind === 'dummy' ? null : blockHash, bitmap, concatBytes(...signatures)];
}

export function readCertificate(value: unknown): Outcome<Certificate> {
  if (!Array.isArray(value) || value.length !== 5) return reject('schema', 'certificate');
  const [code, height, hash, bitmap, joined] = value as unknown[];
  const kind = voteKindOf(code);
  if (!kind) return reject('schema', 'certificate kind');
  if (typeof height !== 'number' || !Number.isSafeInteger(height) || height < 1) {
    return reject('schema', 'certificate height');
  }
  const blockHash = readHash(kind, hash);
  if (!blockHash) return reject('schema', 'certificate block');
  if (!(bitmap instanceof Uint8Array) || bitmap.at(-1) === 0 || bitmap.length > 4096) {
    return reject('schema', 'certificate signers');
  }
  const signers: number[] = [];
  for (let i = 0; i < 8 * bitmap.length; i++) if (bitmap[i >> 3]! & (1 << (i & 7))) signers.push(i);
  if (!(joined instanceof Uint8Array) || joined.length !== signatureBytes * signers.length) {
    return reject('schema', 'certificate signatures');
  }
  const signatures = signers.map((_, i) => joined.slice(signatureBytes * i, signatureBytes * (i + 1)));
  return accept({ kind, height, blockHash, signers, signatures });
}

/** The block a vote names: `noHash`, written as null, for a dummy; undefined when the form is wrong. */
export function readHash(kind: VoteKind, value: unknown): Uint8Array | undefined {
  if (kind === 'dummy') return value === null ? noHash : undefined;
  return value instanceof Uint8Array && value.length === 32 ? value : undefined;
}
