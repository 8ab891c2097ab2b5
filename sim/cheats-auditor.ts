/** Auditors that do none of their work: they say the same of every claim, with a hash that they cannot know. */
import type { DutyOptions, DutyResult } from '../src/audit/duty.ts';
import { type RevealBody, verdictCommitment } from '../src/ledger/verdict.ts';
import { toHex, utf8 } from '../src/std/bytes.ts';
import { taggedHash } from '../src/std/hash.ts';

/** Says of every claim that nothing was done. */
export function accusing(duty: DutyOptions): DutyResult {
  return result(duty, 'false');
}

/** Says of every claim that it holds. */
export function approving(duty: DutyOptions): DutyResult {
  return result(duty, 'valid');
}

function result(options: DutyOptions, verdict: 'valid' | 'false'): DutyResult {
  const { networkId, auditor, duty, salt } = options;
  const hash = taggedHash('neuroshard/made-up/1', utf8(`${auditor}/${duty}`));
  const reveal: RevealBody = { duty, verdict, hash, salt };
  const code = verdict === 'valid' ? 'valid' : 'no-work';
  const finding = {
    verdict,
    code,
    detail: 'made up',
    stateHash: toHex(hash),
    disagreement: undefined,
  } as const;
  return { finding, reveal, commitment: verdictCommitment(networkId, auditor, reveal) };
}
