// oidc-provider as the users' OpenID Provider on loopback. Alice is signed in and agrees to whatever is asked.
// Says its issuer on one line when it listens, and ends with its standard input.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, ...clients] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'users-1', use: 'sig', alg: 'RS256' };
}

const provider = new Provider(issuer, {
  clients: clients.map((client_id) => ({
    client_id,
    application_type: 'native',
    grant_types: ['authorization_code'],
    response_types: ['code'],
    redirect_uris: ['http://127.0.0.1/callback'],
    token_endpoint_auth_method: 'none',
  })),
  jwks: { keys: [signingKey()] },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
});

async function agree(request, response) {
  const { params } = await provider.interactionDetails(request, response);
  const grant = new provider.Grant({ accountId: 'alice', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId: 'alice' }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const handle = provider.callback();
const server = createServer((request, response) =>
  request.url.startsWith('/interaction/') ? agree(request, response) : handle(request, response),
);
server.listen(Number(port), '127.0.0.1', () => console.log(issuer));
process.stdin.resume().on('end', () => process.exit(0));
