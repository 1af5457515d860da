"""Benchmarks, each a module that prints its numbers: ``python -m bench.hedging``."""
