"""The Node client, installed from its lock file beside the contract, and a real server for it to ask."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from router_server.app import running
from router_server.config import read

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sysconfig.get_path("scripts"))
CONFIG = """
server: {listen: "127.0.0.1:0", http_listen: null}
providers:
  steady: {kind: mock, reply: "Paris is the capital of France."}
  frail: {kind: mock, fail_after_tokens: 2, reply: "Lyon, I suppose, is it."}
  broken: {kind: mock, fail: always}
targets:
  frail-tiny: {provider: frail, model: tiny}
  steady-tiny: {provider: steady, model: tiny}
  broken-tiny: {provider: broken, model: tiny}
routes:
  chat: {targets: [frail-tiny, steady-tiny]}
  embed: {targets: [steady-tiny]}
  down: {targets: [broken-tiny]}
"""


@dataclass(frozen=True)
class Ended:
    """What a program left behind."""

    code: int | None
    output: str
    errors: str


Example = Callable[..., Awaitable[Ended]]


def environment(**more: str) -> dict[str, str]:
    """Return an environment whose node and npm are those of the Python package."""
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", **more}


def npm(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run npm in a folder."""
    return subprocess.run(  # noqa: S603 - the npm of a package that the tests depend on
        [PROGRAMS / "npm", *command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the client, installed, its types generated from the contract as it is."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "protos", clone / "protos")
    source = ROOT / "clients/node"
    folder = shutil.copytree(
        source, clone / "clients/node", ignore=shutil.ignore_patterns("node_modules", "generated")
    )
    for command in (["ci", "--ignore-scripts"], ["run", "generate"]):
        done = npm(folder, *command)
        assert done.returncode == 0, f"npm {' '.join(command)}: {done.stdout}{done.stderr}"
    return folder


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """Serve with scripted models; give the address."""
    config = read(CONFIG, {}, origin="tests/node")
    async with running(config, announce=lambda _line: None) as server:
        yield f"127.0.0.1:{server.rpc.port}"


@pytest.fixture
def example(client: Path, target: str) -> Example:
    """Run the example against the server."""

    async def run(*arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            PROGRAMS / "node",
            "src/example.ts",
            *arguments,
            cwd=client,
            env=environment(MODELROUTER_TARGET=target),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        return Ended(process.returncode, output.decode(), errors.decode())

    return run
