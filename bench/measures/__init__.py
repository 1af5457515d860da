"""One module for each figure that the benchmarks show; each has ``measure(bench) -> list[Finding]``."""
