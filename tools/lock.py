"""Resolve every dependency afresh and write the exact versions into requirements/.

`make lock` calls it. The files are constraints: names and versions alone, no addresses and no hashes, so
that they hold on every platform and with every index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from install import ROOT, group

_HEADER: Final = "# Written by `make lock`: {what}\n"
_EXACT: Final = re.compile(r"[A-Za-z0-9._-]+==\S+")


def main() -> None:
    """Write the lock files that can be resolved: LiteLLM's cannot, see bench/README.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = resolve(".[server,embedded]", *group("dev"))
    write("locked.txt", "the versions that are installed and tested.", newest)
    write("bench.txt", "what draws the benchmarks' results.", resolve("matplotlib"))
    lowest = [requirement.split(",")[0].replace(">=", "==") for requirement in project["dependencies"]]
    oldest = resolve(".", *group("test-client"), *lowest)
    write("oldest.txt", "the lower bounds in pyproject.toml, with the tools to test them.", oldest)


def resolve(*requirements: str) -> list[str]:
    """Install the requirements into a new environment and return what is in it, exactly."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder) / "bin" / "python")
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", *requirements)
        frozen = run(
            python, "-m", "pip", "freeze", "--all", "--exclude", "modelrouter-grpc", "--exclude", "pip"
        )
    return [line for line in frozen.splitlines() if _EXACT.fullmatch(line)]


def run(*command: str) -> str:
    """Return what a command prints; its failure ends the program."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ours


def write(name: str, what: str, versions: list[str]) -> None:
    """Write one lock file."""
    lines = sorted(versions, key=str.lower)
    (ROOT / "requirements" / name).write_text(_HEADER.format(what=what) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
