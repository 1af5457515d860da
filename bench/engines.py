"""Real vLLM servers on this machine's CPU, for benchmarks and for the tests of ``make test-vllm``.

They run in ``.venv-vllm``, or with the interpreter that ``MODELROUTER_VLLM_PYTHON`` names. Refuses to know
the router.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = os.environ.get("MODELROUTER_VLLM_PYTHON") or str(ROOT / ".venv-vllm/bin/python")
ENVIRONMENT: Final[Mapping[str, str]] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "HF_HUB_OFFLINE": "1",
    # Otherwise the first request with log probabilities compiles for 17 s.
    "TORCHDYNAMO_DISABLE": "1",
}
"""How vLLM runs on few cores, with no network; the development mode is what ``/sleep`` is part of."""

ARGUMENTS: Final = ("--enforce-eager", "--disable-uvicorn-access-log")
_START: Final = 300.0
"""Seconds that a start may take: 30 s where two cores are free, several times that where they are shared."""
_SAMPLE: Final = re.compile(r"^vllm:(?P<name>\w+)\{[^}]*\} (?P<value>\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Models:
    """Folders of the models; tools/vllm_models.py says what they are."""

    chat: Path
    adapter: Path
    embedding: Path


async def prepared_models() -> Models:
    """Return the models, making them where this is the first time: some ten seconds."""
    made = await asyncio.create_subprocess_exec(
        PYTHON, str(ROOT / "tools/vllm_models.py"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await made.communicate()
    if made.returncode:
        raise RuntimeError("the models could not be made; vLLM's own output is above")
    folder = Path(output.decode().strip())
    return Models(folder / "smollm2", folder / "adapter", folder / "minilm")


@dataclass(frozen=True, slots=True)
class Engine:
    """One vLLM server on a unix socket."""

    process: asyncio.subprocess.Process
    socket: Path
    log: Path

    @property
    def base_url(self) -> str:
        """The address, as the router's configuration has it."""
        return f"unix://{self.socket}"

    async def metrics(self) -> dict[str, float]:
        """Return its gauges and counters by name without ``vllm:``, summed over their labels."""
        return await metrics_of(self.socket)

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have taken."""
        main = psutil.Process(self.process.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (main, *main.children(recursive=True)))

    def kill(self) -> None:
        """End all its processes at once, as the kernel does where memory runs out."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


async def metrics_of(socket: Path) -> dict[str, float]:
    """Return the gauges and counters of the vLLM that listens on ``socket``."""
    connector = aiohttp.UnixConnector(str(socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://vllm/metrics") as answer,
    ):
        page = await answer.text()
    sums: dict[str, float] = {}
    for sample in _SAMPLE.finditer(page):
        sums[sample["name"]] = sums.get(sample["name"], 0.0) + float(sample["value"])
    return sums


@asynccontextmanager
async def engine(folder: Path, name: str, model: Path, *arguments: str) -> AsyncIterator[Engine]:
    """Run vLLM with ``model`` under the name ``name`` until the context ends; ``folder`` gets socket and log.

    Raises:
        RuntimeError: it did not start; the message holds the end of its log.
    """
    socket, log = folder / f"{name}.sock", folder / f"{name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--uds", str(socket)),
            *("--model", str(model), "--served-model-name", name, *ARGUMENTS, *arguments),
            env={**os.environ, **ENVIRONMENT},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Engine(process, socket, log)
    try:
        await _until_healthy(started)
        yield started
    finally:
        started.kill()
        await process.wait()


async def _until_healthy(started: Engine) -> None:
    connector = aiohttp.UnixConnector(str(started.socket))
    try:
        async with asyncio.timeout(_START), aiohttp.ClientSession(connector=connector) as session:
            while not await _is_healthy(session):
                if started.process.returncode is not None:
                    raise RuntimeError(f"vLLM ended while it started:\n{_tail(started.log)}")
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise RuntimeError(f"vLLM did not start within {_START:.0f} s:\n{_tail(started.log)}") from None


async def _is_healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("http://vllm/health") as answer:
            return answer.status == 200  # noqa: PLR2004 - HTTP's OK
    except aiohttp.ClientConnectionError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
