"""Write the hashes of what a lock file may install: ``python tools/hashes.py requirements/vllm.txt``.

The versions stay as they are: they are those with which its tests were seen to pass. pip is asked which file
it would install of each, on Linux and x86-64, with every Python that the project supports.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PYTHONS: Final = ("3.11", "3.12", "3.13")
_GLIBC_MINORS: Final = range(17, 36)
PLATFORMS: Final = (
    *("linux", "manylinux1", "manylinux2010", "manylinux2014"),
    *(f"manylinux_2_{minor}" for minor in _GLIBC_MINORS),
)
_PIN: Final = re.compile(r"^([\w.-]+==[\w.+]+)", re.MULTILINE)


def main() -> None:
    """Rewrite the lock file that the command line names."""
    lock = Path(sys.argv[1])
    text = lock.read_text()
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    pins = _PIN.findall(text)
    hashes: dict[str, set[str]] = {}
    for python in PYTHONS:
        for name, digest in files(pins, python):
            hashes.setdefault(name, set()).add(digest)
    entries = [entry(pin, hashes[normal(pin.partition("==")[0])]) for pin in pins]
    lock.write_text(comment + "".join(entries))


def entry(pin: str, hashes: set[str]) -> str:
    """Return the lines of one package."""
    return " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(hashes))]) + "\n"


def files(pins: list[str], python: str) -> list[tuple[str, str]]:
    """Return the normal name and the SHA-256 of what pip would install for that Python."""
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        subprocess.run(  # noqa: S603 - pip, with what the lock file says
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
                *("--no-deps", "--only-binary=:all:", "--target", folder, "--python-version", python),
                *("--report", str(report), *platforms, *pins),
            ],
            check=True,
        )
        found = json.loads(report.read_text())["install"]
    return [
        (normal(one["metadata"]["name"]), one["download_info"]["archive_info"]["hashes"]["sha256"])
        for one in found
    ]


def normal(name: str) -> str:
    """Return a distribution's name as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
