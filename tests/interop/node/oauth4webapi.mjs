// oauth4webapi as an agent's client, as a resource that introspects, and as a resource that validates.
import * as oauth from 'oauth4webapi';
import { answer, keyPair } from './exchange.mjs';

async function server(task, algorithm = 'oauth2') {
  const issuer = new URL(task.issuer);
  const found = await oauth.discoveryRequest(issuer, { algorithm });
  return oauth.processDiscoveryResponse(issuer, found);
}

async function party(task) {
  const keys = await keyPair(task.key);
  const client = { client_id: task.client_id };
  return { client, keys, authentication: oauth.PrivateKeyJwt(keys.privateKey) };
}

/** A grant with a DPoP proof: sent again with the server's nonce, as often as that was asked for. */
async function grant(task) {
  const as = await server(task);
  const { client, keys, authentication } = await party(task);
  const DPoP = oauth.DPoP(client, task.proof_key ? await keyPair(task.proof_key) : keys);
  const parameters = new URLSearchParams(task.parameters);
  const ask = () =>
    task.grant_type === 'client_credentials'
      ? oauth
          .clientCredentialsGrantRequest(as, client, authentication, parameters, { DPoP })
          .then((found) => oauth.processClientCredentialsResponse(as, client, found))
      : oauth
          .genericTokenEndpointRequest(as, client, authentication, task.grant_type, parameters, { DPoP })
          .then((found) => oauth.processGenericTokenEndpointResponse(as, client, found));
  let nonces = 0;
  for (;;) {
    try {
      return { ...(await ask()), nonces };
    } catch (error) {
      if (!oauth.isDPoPNonceError(error) || nonces === 2) throw error;
      nonces += 1;
    }
  }
}

async function introspect(task) {
  const as = await server(task);
  const { client, authentication } = await party(task);
  const found = await oauth.introspectionRequest(as, client, authentication, task.token);
  return oauth.processIntrospectionResponse(as, client, found);
}

async function revoke(task) {
  const as = await server(task);
  const { client, authentication } = await party(task);
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, authentication, task.token));
}

/** The call of a resource with token and proof, judged as a resource does by RFC 9068 and RFC 9449. */
async function validate(task) {
  const as = await server(task);
  const { client, keys } = await party(task);
  let sent;
  await oauth.protectedResourceRequest(task.token, 'GET', new URL(task.url), undefined, undefined, {
    DPoP: oauth.DPoP(client, keys),
    [oauth.customFetch]: async (url, options) => {
      sent = new Request(url, options);
      return new Response('{}', { status: 200 });
    },
  });
  return oauth.validateJwtAccessToken(as, sent, task.audience, { requireDPoP: true });
}

/** Both discovery documents, and the resource's own, as far as the library accepts them. */
async function discover(task) {
  const url = new URL(task.issuer);
  const resource = await oauth.processResourceDiscoveryResponse(url, await oauth.resourceDiscoveryRequest(url));
  return { oauth2: await server(task), oidc: await server(task, 'oidc'), resource };
}

await answer({ grant, introspect, revoke, validate, discover });
