// What does the test ask, and how is it told the outcome? A JSON object a line in, one a line out.
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { createInterface } from 'node:readline';

const SECONDS = 30;

/** A P-256 key pair from PEM, as WebCrypto has it. */
export async function keyPair(pem) {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const own = createPrivateKey(pem);
  const pkcs8 = own.export({ type: 'pkcs8', format: 'der' });
  const spki = createPublicKey(own).export({ type: 'spki', format: 'der' });
  return {
    privateKey: await crypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
    publicKey: await crypto.subtle.importKey('spki', spki, algorithm, true, ['verify']),
  };
}

/** Run the verb of each line. What a library throws is an outcome, too: the test judges it. */
export async function answer(verbs) {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await outcome(verbs, JSON.parse(line))));
  }
}

async function outcome(verbs, task) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${SECONDS} s`)), SECONDS * 1000);
  });
  try {
    return { result: (await Promise.race([verbs[task.verb](task), late])) ?? null };
  } catch (error) {
    const { code, status, message } = error;
    return { refused: { code, error: error.error, status, message } };
  } finally {
    clearTimeout(timer);
  }
}
