"""The contract's generated messages and stubs, version 1: `make proto` writes them."""
