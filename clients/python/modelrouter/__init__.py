"""Models, embeddings and token streams behind one gRPC service."""
