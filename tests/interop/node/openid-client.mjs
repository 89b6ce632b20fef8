// openid-client as an agent's client with DPoP, and as a resource that introspects.
import * as client from 'openid-client';
import { answer, keyPair } from './exchange.mjs';

async function configured(task) {
  const keys = await keyPair(task.key);
  const authentication = client.PrivateKeyJwt(keys.privateKey);
  const config = await client.discovery(new URL(task.issuer), task.client_id, undefined, authentication, {
    algorithm: task.algorithm ?? 'oauth2',
  });
  return { config, keys };
}

/** The library sends a request again by itself when the server wants a nonce. */
async function grant(task) {
  const { config, keys } = await configured(task);
  const DPoP = client.getDPoPHandle(config, task.proof_key ? await keyPair(task.proof_key) : keys);
  if (task.grant_type === 'client_credentials') {
    return client.clientCredentialsGrant(config, task.parameters, { DPoP });
  }
  return client.genericGrantRequest(config, task.grant_type, task.parameters, { DPoP });
}

async function introspect(task) {
  const { config } = await configured(task);
  return client.tokenIntrospection(config, task.token);
}

async function revoke(task) {
  const { config } = await configured(task);
  await client.tokenRevocation(config, task.token);
}

await answer({ grant, introspect, revoke });
