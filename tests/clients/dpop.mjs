// An authorization server and an API of another make: `oidc-provider` mints tokens that are bound to a key, for a
// client that must give a nonce, and `oauth4webapi` verifies each request with one of them. What neither looks at
// (a proof used twice, a query in `htu`) is looked at here.
//
//   node dpop.mjs PACKAGES PUBLIC_KEY_FILE
//
// Prints its URL and then one line per request; on SIGTERM it shows that wrong requests are refused, and exits 1 if
// one is not.

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

globalThis.crypto ??= webcrypto; // Node 18 has it behind a flag

const [, , packages, publicKeyFile] = process.argv;
const load = (name) => import(pathToFileURL(createRequire(`${packages}/`).resolve(name)));
const { default: Provider } = await load('oidc-provider');
const oauth = await load('oauth4webapi');

const CLIENT = '0oaTheApp';
const SCOPES = 'okta.users.read okta.users.manage okta.groups.read okta.groups.manage';

const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const url = `http://127.0.0.1:${server.address().port}`;
const audience = `${url}/api`;

const serverKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const provider = new Provider(url, {
  clients: [{
    client_id: CLIENT,
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    dpop_bound_access_tokens: true,
    id_token_signed_response_alg: 'ES256', // the only algorithm of the server's key
    jwks: { keys: [createPublicKey(readFileSync(publicKeyFile)).export({ format: 'jwk' })] },
  }],
  jwks: { keys: [{ ...serverKey, alg: 'ES256', use: 'sig' }] },
  routes: { token: '/oauth2/v1/token', jwks: '/oauth2/v1/keys' },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: () => ({
        scope: SCOPES,
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});
const mint = provider.callback();
const as = { issuer: url, jwks_uri: `${url}/oauth2/v1/keys` };

const claimsOf = (proof) => JSON.parse(Buffer.from(proof.split('.')[1], 'base64url'));
const seen = new Set();

// Throws if a request is not what RFC 9449 wants of one.
const verify = async ({ method, target, headers }) => {
  const request = new Request(url + target, { method, headers });
  const options = { [oauth.allowInsecureRequests]: true, requireDPoP: true };
  await oauth.validateJwtAccessToken(as, request, audience, options);
  const { htu, jti } = claimsOf(headers.dpop);
  if (/[?#]/.test(htu)) throw new Error('htu has a query or a fragment');
  if (seen.has(jti)) throw new Error('the proof was used before');
  seen.add(jti);
};

let last;
let writes = 0;
server.on('request', async (incoming, outgoing) => {
  const { method, url: target, headers } = incoming;
  const rate = { 'x-rate-limit-limit': 600, 'x-rate-limit-remaining': 500 };
  const answer = (status, body) => {
    console.log(method, target.split('?')[0], status, body.errorSummary ?? '');
    const reset = Math.ceil(Date.now() / 1000) + 30;
    outgoing.writeHead(status, { 'content-type': 'application/json', 'x-rate-limit-reset': reset, ...rate });
    outgoing.end(JSON.stringify(body));
  };
  if (!target.startsWith('/api/')) {
    outgoing.on('finish', () => console.log(method, target, outgoing.statusCode));
    if (headers.dpop || method !== 'POST') return mint(incoming, outgoing);
    // Okta's answer; the provider's own would be `invalid_grant`.
    outgoing.writeHead(400, { 'content-type': 'application/json' });
    const missing = { error: 'invalid_dpop_proof', error_description: 'The DPoP proof JWT header is missing.' };
    return outgoing.end(JSON.stringify(missing));
  }
  try {
    await verify({ method, target, headers });
  } catch (error) {
    return answer(401, { errorCode: 'E0000011', errorSummary: `not proven: ${error.message}` });
  }
  last = { method, target, headers };
  if (method === 'GET') return answer(200, []);
  writes += 1;
  const busy = { errorCode: 'E0000009', errorSummary: 'Internal Server Error' };
  if (writes === 1) return answer(500, busy); // so that it is sent again, with another proof
  return answer(200, { id: '00gA', type: 'OKTA_GROUP', profile: { name: 'Night shift' } });
});

// A request like the last one, with a proof signed by another key or changed in its claims.
const reproved = (change, key) => {
  const [head] = last.headers.dpop.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const { kty, crv, x, y } = createPublicKey(key).export({ format: 'jwk' });
  header.jwk = { kty, crv, x, y };
  const claims = { ...claimsOf(last.headers.dpop), jti: randomBytes(8).toString('hex'), ...change };
  const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
  return { ...last, headers: { ...last.headers, dpop: `${text}.${signature}` } };
};

process.on('SIGTERM', async () => {
  const other = createPrivateKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'pem', type: 'pkcs8' }));
  const { dpop, ...bare } = last.headers;
  const [start, middle, end] = dpop.split('.');
  const wrong = {
    'the same proof again': last,
    'no proof': { ...last, headers: bare },
    'a bearer token': { ...last, headers: { ...last.headers, authorization: last.headers.authorization.replace('DPoP', 'Bearer') } },
    'another method': { ...last, method: 'DELETE' },
    'another path': { ...last, target: '/api/v1/apps' },
    'a changed signature': { ...last, headers: { ...last.headers, dpop: [start, middle, end.slice(0, -4) + 'AAAA'].join('.') } },
    'another key': reproved({}, other),
    'an old proof': reproved({ iat: 1_000_000_000 }, other),
    'another token': reproved({ ath: 'x' }, other),
  };
  let missed = 0;
  for (const [name, request] of Object.entries(wrong)) {
    const refused = await verify(request).then(() => null, (error) => error.message);
    if (refused === null) missed += 1;
    console.log(refused === null ? `ACCEPTED: ${name}` : `refused: ${name}: ${refused}`);
  }
  process.exit(missed === 0 ? 0 : 1);
});

console.log(url);
