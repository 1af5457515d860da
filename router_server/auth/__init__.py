"""Who calls: API keys, tokens of identity providers, client certificates."""
