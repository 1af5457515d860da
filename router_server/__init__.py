"""The router: a gRPC service in front of language models."""
