"""Runs one property under atheris: ``python -m tests.fuzz.target NAME CORPUS -max_total_time=30``.

A process of its own, since libFuzzer takes over the one that it runs in, and ends it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["router_server", "tests.fuzz.properties"]):
    from tests.fuzz.properties import PROPERTIES


def main() -> None:
    """Fuzz the property that the command line names."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, PROPERTIES[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
