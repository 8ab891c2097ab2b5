/** Entry of a thread that verifies signatures, many for each message. Started by `signature-threads.ts` only. */
import { parentPort } from 'node:worker_threads';
import { verifyDigest } from '../../identity/keys.ts';
import { must } from '../../std/assert.ts';
import { installNodeSha256 } from './sha256.ts';
import { recordBytes, recordParts } from './signature-records.ts';

const port = must(parentPort, 'a worker has a parent');
installNodeSha256();
port.on('message', (records: Uint8Array) => {
  const verdicts = new Uint8Array(records.length / recordBytes);
  for (let index = 0; index < verdicts.length; index++) {
    const { digest, signature, publicKey } = recordParts(records, index);
    verdicts[index] = verifyDigest(digest, signature, publicKey) ? 1 : 0;
  }
  port.postMessage(verdicts);
});
