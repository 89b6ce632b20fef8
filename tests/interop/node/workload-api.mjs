// @grpc/grpc-js as a local program: the standard's calls by a definition that is not ours.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { answer } from './exchange.mjs';

// As the standard has it; field numbers and names are what is tested.
const DEFINITION = `
syntax = "proto3";
import "google/protobuf/struct.proto";
service SpiffeWorkloadAPI {
  rpc FetchX509SVID(Nothing) returns (stream X509SVIDResponse);
  rpc FetchX509Bundles(Nothing) returns (stream X509BundlesResponse);
  rpc FetchJWTSVID(JWTSVIDRequest) returns (JWTSVIDResponse);
  rpc FetchJWTBundles(Nothing) returns (stream JWTBundlesResponse);
  rpc ValidateJWTSVID(ValidateJWTSVIDRequest) returns (ValidateJWTSVIDResponse);
  rpc FetchWITSVID(WITSVIDRequest) returns (stream WITSVIDResponse);
  rpc FetchWITBundles(Nothing) returns (stream WITBundlesResponse);
}
message Nothing {}
message X509SVIDResponse { repeated X509SVID svids = 1; repeated bytes crl = 2; map<string, bytes> federated_bundles = 3; }
message X509SVID { string spiffe_id = 1; bytes x509_svid = 2; bytes x509_svid_key = 3; bytes bundle = 4; string hint = 5; }
message X509BundlesResponse { repeated bytes crl = 1; map<string, bytes> bundles = 2; }
message JWTSVIDRequest { repeated string audience = 1; string spiffe_id = 2; }
message JWTSVIDResponse { repeated JWTSVID svids = 1; }
message JWTSVID { string spiffe_id = 1; string svid = 2; string hint = 3; }
message JWTBundlesResponse { map<string, bytes> bundles = 1; }
message ValidateJWTSVIDRequest { string audience = 1; string svid = 2; }
message ValidateJWTSVIDResponse { string spiffe_id = 1; google.protobuf.Struct claims = 2; }
message WITSVIDRequest { string spiffe_id = 1; }
message WITSVIDResponse { repeated WITSVID svids = 1; }
message WITSVID { string spiffe_id = 1; string wit_svid = 2; string wit_svid_key = 3; string hint = 4; }
message WITBundlesResponse { map<string, string> bundles = 1; }
`;

function load() {
  const folder = mkdtempSync(join(tmpdir(), 'workload-api-'));
  try {
    const file = join(folder, 'workload.proto');
    writeFileSync(file, DEFINITION);
    const definition = loadSync(file, { keepCase: true, defaults: true, bytes: String });
    return grpc.loadPackageDefinition(definition).SpiffeWorkloadAPI;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const Service = load();
const streams = new Map();

function connect(task) {
  return new Service(`unix://${task.path}`, grpc.credentials.createInsecure());
}

function header(task) {
  const metadata = new grpc.Metadata();
  for (const value of task.header ?? ['true']) metadata.add('workload.spiffe.io', value);
  return metadata;
}

/** One call with one answer. */
function once(task) {
  const client = connect(task);
  return new Promise((resolve, reject) => {
    client[task.method](task.request ?? {}, header(task), (error, answered) => {
      client.close();
      error ? reject(error) : resolve(answered);
    });
  });
}

/** Begin a stream and keep what comes of it. */
function open(task) {
  const client = connect(task);
  const call = client[task.method](task.request ?? {}, header(task));
  const kept = { come: [], waiting: [] };
  const push = (one) => (kept.waiting.length ? kept.waiting.shift()(one) : kept.come.push(one));
  call.on('data', (data) => push({ data }));
  call.on('error', (error) => push({ error }));
  kept.close = () => (call.cancel(), client.close());
  streams.set(task.name, kept);
}

/** What the stream says next. */
async function next(task) {
  const kept = streams.get(task.name);
  const one = kept.come.shift() ?? (await new Promise((resolve) => kept.waiting.push(resolve)));
  if (one.error) throw one.error;
  return one.data;
}

function close(task) {
  streams.get(task.name).close();
  streams.delete(task.name);
}

await answer({ once, open, next, close });
