"""What replicas share: in Redis, or in memory with the same behaviour on one process."""
