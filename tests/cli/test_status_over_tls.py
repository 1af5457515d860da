"""`router-server status` where the main port is encrypted and health has a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from router_server.app import running
from router_server.cli import main
from router_server.commands.exits import Exit
from router_server.config import read
from tests.rpc.certificates import Authority


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="cli-") as name:
        yield Path(name)


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder, "ca")


@pytest.fixture
async def port(folder: Path, authority: Authority) -> AsyncIterator[int]:
    pair = authority.issue("server")
    text = f"""\
server:
  listen: 127.0.0.1:0
  health_listen: unix:{folder}/health
  http_listen: null
  tls: {{cert: {pair.cert}, key: {pair.key}}}
providers: {{m: {{kind: mock}}}}
targets: {{t: {{provider: m, model: x}}}}
routes: {{chat: {{targets: [t]}}}}
"""
    async with running(read(text, {}, origin="test"), announce=lambda _line: None) as server:
        yield server.rpc.port


async def status(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["status", "--timeout", "20", *arguments])


async def test_the_authority_opens_the_main_port(
    port: int, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"127.0.0.1:{port}"
    assert await status("--target", target, "--ca", str(authority.cert)) == Exit.OK
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [f"{target} is ready.", "  route chat  serving      t", "  target t    serving"]
    assert [line[:12] for line in said[3:]] == ["  provider m"]


@pytest.mark.usefixtures("port")
async def test_the_health_port_tells_readiness_without_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"unix:{folder}/health"
    assert await status("--target", target) == Exit.OK
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{target} is ready."
    assert [line[:12] for line in said[1:]] == ["  provider m"], "status is given no routes here"


async def test_plaintext_does_not_open_the_main_port(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert await status("--target", f"127.0.0.1:{port}", "--timeout", "0.5") == Exit.FAILED
    assert f"no router answers at 127.0.0.1:{port}" in capsys.readouterr().err
