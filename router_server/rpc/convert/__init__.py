"""Between the contract's messages and the core's types: pure, and raising nothing but `RouterError`."""
