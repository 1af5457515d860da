// The client of the contract: @grpc/proto-loader reads the .proto files as they are, and the types are what
// its generator wrote from the same files (`npm run generate`).
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { ModelRouterServiceClient } from "../generated/modelrouter/v1/ModelRouterService.ts";
import type { ProtoGrpcType } from "../generated/service.ts";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));

// As in the `generate` script of package.json: the types say what these options make.
const conversion = { longs: Number, enums: String, defaults: true, oneofs: true };

// A server with large embeddings sends up to 64 MiB; grpc-js takes 4 by default.
const limits = { "grpc.max_receive_message_length": 64 * 1024 * 1024 };

export type Client = ModelRouterServiceClient;

/** Returns a client of the server at `target` (host:port), without TLS unless credentials say otherwise. */
export function connect(target: string, credentials = grpc.credentials.createInsecure()): Client {
  const definition = loadSync("modelrouter/v1/service.proto", { ...conversion, includeDirs: [protos] });
  const loaded = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;
  return new loaded.modelrouter.v1.ModelRouterService(target, credentials, limits);
}
