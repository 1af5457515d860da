"""Real vLLM on this machine's CPU, as the router's ``serve`` runs it: for benchmarks and ``make test-vllm``.

It runs in ``.venv-vllm``, or with the interpreter that ``MODELROUTER_VLLM_PYTHON`` names.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = os.environ.get("MODELROUTER_VLLM_PYTHON") or str(ROOT / ".venv-vllm/bin/python")

ENVIRONMENT: Final[Mapping[str, str]] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    # Otherwise the first request with log probabilities compiles for 17 s.
    "TORCHDYNAMO_DISABLE": "1",
    # One thread, bound to no core: several engines, a router and a test share few cores, and two threads that
    # wait for each other at every layer are ten times slower where somebody else has one of the cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
"""How vLLM runs on few cores, with no network."""

ARGUMENTS: Final = ("--enforce-eager", "--disable-uvicorn-access-log")
_SAMPLE: Final = re.compile(r"^vllm:(?P<name>\w+)\{[^}]*\} (?P<value>\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Models:
    """Folders of the models; tools/vllm_models.py says what they are."""

    chat: Path
    adapter: Path
    embedding: Path


async def prepared_models() -> Models:
    """Return the models, making them where this is the first time: some ten seconds.

    Raises:
        RuntimeError: they could not be made; why is on the standard error.
    """
    made = await asyncio.create_subprocess_exec(
        PYTHON, str(ROOT / "tools/vllm_models.py"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await made.communicate()
    if made.returncode:
        raise RuntimeError("the models could not be made; what is wrong stands above")
    folder = Path(output.decode().strip())
    return Models(folder / "smollm2", folder / "adapter", folder / "minilm")


def serve(model: Path, name: str, log: Path, *arguments: str, **keys: object) -> str:
    """Return the value of a provider's ``serve``, in YAML: ``model`` under the name ``name``."""
    return yaml.safe_dump(
        {
            "model": str(model),
            "python": PYTHON,
            "args": ["--served-model-name", name, *ARGUMENTS, *arguments],
            "env": dict(ENVIRONMENT),
            "log": {"folder": str(log)},
            **keys,
        },
        default_flow_style=True,
        width=10_000,
    ).strip()


@dataclass(frozen=True, slots=True)
class Engine:
    """A vLLM that listens on a unix socket, seen from outside."""

    socket: Path

    @property
    def base_url(self) -> str:
        """The address, as the router's configuration has it."""
        return f"unix://{self.socket}"

    async def metrics(self) -> dict[str, float]:
        """Return its gauges and counters by name without ``vllm:``, summed over their labels."""
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://vllm/metrics") as answer,
        ):
            page = await answer.text()
        sums: dict[str, float] = {}
        for sample in _SAMPLE.finditer(page):
            sums[sample["name"]] = sums.get(sample["name"], 0.0) + float(sample["value"])
        return sums

    @property
    def processes(self) -> list[psutil.Process]:
        """The server and everything that it has started; none where it does not run."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            # vLLM's processes rename themselves; what holds them does not.
            if str(self.socket) in words and any(word.endswith("/keeper.py") for word in words):
                return process.children(recursive=True)
        return []

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that its processes have taken."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def kill(self) -> None:
        """End all its processes at once, as the kernel does where memory runs out."""
        for process in self.processes:
            # What one of them had started itself may end with it, before its turn comes.
            with suppress(psutil.NoSuchProcess):
                process.kill()
