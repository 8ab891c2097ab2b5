/**
 * The network manifest: everything the members of one network must share, as one signed JSON document. Its hash is
 * the network id; a node with another manifest is in another network. Bootstrap addresses are not part of the id.
 */
import { z } from 'zod';
import { type KeyPair, nodeIdOf, signDigest, verifyDigest } from '../identity/keys.ts';
import { type LedgerPolicy, ledgerPolicySchema } from '../ledger/policy.ts';
import { type ModelConfig, parseModelConfig } from '../model/config.ts';
import { assignMembers } from '../pipeline/assignment.ts';
import { must } from '../std/assert.ts';
import { fromHex, toHex, utf8 } from '../std/bytes.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';
import {
  type OuterPolicy,
  outerSchema,
  type TrainingDraft,
  type TrainingPolicy,
  trainingSchema,
} from './policy.ts';

const hex = (bytes: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`), `${bytes} bytes of hex`);

const bodySchema = z.strictObject({
  format: z.literal(1),
  name: z.string().min(1).max(64),
  /** When it was founded, in milliseconds; left out, its first epoch is as old as its members say. */
  createdMs: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  /** All randomness of the network: initial weights, draws. */
  seed: hex(32),
  model: z.unknown(),
  /** Hash of the dataset's manifest. */
  dataset: hex(32),
  training: trainingSchema,
  outer: outerSchema,
  /** The economy; what is left out has its default. */
  ledger: ledgerPolicySchema.prefault({}),
  /** Compressed public keys with votes. */
  members: z
    .array(z.strictObject({ publicKey: hex(33), weight: z.number().int().min(1).max(1_000_000) }))
    .min(1)
    .max(256),
});

const manifestSchema = z.strictObject({
  body: bodySchema,
  founder: hex(33),
  signature: hex(64),
  bootstrap: z.array(z.string().max(512)).max(64).default([]),
});

export interface NetworkManifest {
  readonly name: string;
  /** By the founder's clock; undefined where the manifest does not say. */
  readonly createdMs: number | undefined;
  /** 32 bytes. */
  readonly networkId: Uint8Array;
  readonly seed: Uint8Array;
  readonly model: ModelConfig;
  readonly dataset: string;
  readonly training: TrainingPolicy;
  readonly outer: OuterPolicy;
  readonly ledger: LedgerPolicy;
  readonly members: readonly {
    readonly nodeId: string;
    readonly publicKey: Uint8Array;
    readonly weight: number;
    /** The stage whose cohort it belongs to, from the manifest alone. */
    readonly stage: number;
  }[];
  readonly founder: Uint8Array;
  readonly bootstrap: readonly string[];
}

/** What a founder chooses. */
export interface NetworkDraft {
  readonly name: string;
  readonly createdMs?: number;
  readonly seed: Uint8Array;
  readonly model: ModelConfig;
  readonly dataset: string;
  readonly training: TrainingDraft;
  readonly outer: OuterPolicy;
  readonly ledger?: Partial<LedgerPolicy>;
  readonly members: readonly { readonly publicKey: Uint8Array; readonly weight: number }[];
  readonly bootstrap?: readonly string[];
}

export const networkBytesMax = 256 * 1024;

function networkIdOf(body: unknown): Uint8Array {
  return taggedHash('neuroshard/network/1', encodeCanonical(body as Canonical));
}

/** Why this model cannot be trained in so many stages by so many members; undefined when it can. */
export function stagesProblem(model: ModelConfig, stages: number, members: number): string | undefined {
  if (stages === 1) return undefined;
  if (stages > model.layers) return `${stages} stages of a model with ${model.layers} layers`;
  if (model.tiedEmbeddings) return 'a model with tied embeddings cannot be cut into stages';
  // What a stage stands on is what its members state: without one nobody could ever join it.
  if (stages > members) return `${stages} stages need as many members, not ${members}`;
  return undefined;
}

/** The signed document, ready to be written. Throws CodedError `bad-network` for stages that cannot be. */
export function createNetworkDocument(draft: NetworkDraft, founder: KeyPair): string {
  const problem = stagesProblem(draft.model, draft.training.stages ?? 1, draft.members.length);
  if (problem) throw new CodedError('bad-network', problem);
  const body = bodySchema.parse({
    format: 1,
    name: draft.name,
    ...(draft.createdMs !== undefined && { createdMs: draft.createdMs }),
    seed: toHex(draft.seed),
    model: draft.model,
    dataset: draft.dataset,
    training: draft.training,
    outer: draft.outer,
    ledger: draft.ledger ?? {},
    members: draft.members.map(({ publicKey, weight }) => ({ publicKey: toHex(publicKey), weight })),
  });
  const document = {
    body,
    founder: toHex(founder.publicKey),
    signature: toHex(signDigest(networkIdOf(body), founder.secretKey)),
    bootstrap: draft.bootstrap ?? [],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** Parses an untrusted document: `bad-network` with the offending field, or `bad-signature`. */
export function parseNetwork(text: string): Outcome<NetworkManifest> {
  if (utf8(text).length > networkBytesMax) return reject('bad-network', 'the document is too large');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return reject('bad-network', 'not JSON');
  }
  const parsed = manifestSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    return reject('bad-network', `${issue.path.join('.') || 'document'}: ${issue.message}`);
  }
  const { body, founder, signature, bootstrap } = parsed.data;
  const model = parseModelConfig(body.model);
  if (!model.ok) return reject('bad-network', `model: ${model.detail}`);
  if (body.training.sequence > model.value.context)
    return reject('bad-network', 'sequence exceeds the context');
  const problem = stagesProblem(model.value, body.training.stages, body.members.length);
  if (problem) return reject('bad-network', problem);
  const keys = new Set(body.members.map((member) => member.publicKey));
  if (keys.size !== body.members.length) return reject('bad-network', 'a member is named twice');
  // What was signed is what stands in the document, which may leave out what has a default.
  const networkId = networkIdOf((json as { readonly body: unknown }).body);
  if (!verifyDigest(networkId, fromHex(signature), fromHex(founder)))
    return reject('bad-signature', 'it was changed after its founder signed it');
  const memberIds = body.members.map((member) => nodeIdOf(fromHex(member.publicKey)));
  const stageOf = assignMembers(memberIds, body.training.stages);
  return accept({
    name: body.name,
    createdMs: body.createdMs,
    networkId,
    seed: fromHex(body.seed),
    model: model.value,
    dataset: body.dataset,
    training: body.training,
    outer: body.outer,
    ledger: body.ledger,
    members: body.members.map(({ publicKey, weight }, i) => {
      const nodeId = memberIds[i]!;
      return { nodeId, publicKey: fromHex(publicKey), weight, stage: must(stageOf.get(nodeId), nodeId) };
    }),
    founder: fromHex(founder),
    bootstrap,
  });
}

/** The manifest of a document the user named; throws CodedError with one clear line. */
export function requireNetwork(text: string, where: string): NetworkManifest {
  const parsed = parseNetwork(text);
  if (parsed.ok) return parsed.value;
  throw new CodedError(
    parsed.code,
    `${where} is not a valid network manifest${parsed.detail && `: ${parsed.detail}`}`,
  );
}
