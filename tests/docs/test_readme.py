"""The README does what it says: its commands and its program run as they stand, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router_server.config import default_config
from router_server.greeting import served
from tests.docs.pages import README, ROOT, blocks
from tests.e2e.serving import Served, serving

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:50051"
ROUTER = """
    providers: {demo: {kind: mock, reply: "The capital of France is Paris.", dimensions: 4}}
    targets:
      demo: {provider: demo, model: demo, capabilities: {embed: false}}
      vectors: {provider: demo, model: demo-embed, capabilities: {chat: false}}
    routes:
      chat: {targets: [demo]}
      embed: {targets: [vectors]}
"""


@pytest.fixture
async def router() -> AsyncIterator[Served]:
    async with serving(ROUTER) as router:
        yield router


def commands() -> list[tuple[str, str]]:
    """Return each command of a console, and what is shown under it."""
    found = []
    for block in blocks(README, "console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n", " ").partition("\n")
            found.append((command, output))
    return found


async def ran(command: str, target: str) -> str:
    """Run a command of the README against the server at ``target``; return what it prints."""
    program, *arguments = shlex.split(command.replace(ADDRESS, target))
    process = await asyncio.create_subprocess_exec(
        BIN / Path(program).name,
        *arguments,
        env={**os.environ, "MODELROUTER_TARGET": target},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_make_run_prints_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(ROOT / ".venv" / "bin" / "router-server")])
    config, explanation = default_config({})
    ports = [int(a.rpartition(":")[2]) for a in (config.server.listen, config.server.http_listen or "")]
    (shown,) = blocks(README, "text")
    assert shown.text == f"{explanation}\n{served(config, *ports)}\n"


def test_the_first_command_is_the_one_that_the_server_names() -> None:
    (shown,) = blocks(README, "text")
    assert shown.text.rstrip().endswith(f"Try: {commands()[0][0]}")


async def test_the_first_command_prints_what_is_shown(router: Served) -> None:
    command, shown = commands()[0]
    assert await ran(command, router.target) == shown


async def test_a_tool_without_stubs_prints_the_events(router: Served) -> None:
    command, _shown = commands()[1]
    events = _objects(await ran(command, router.target))
    assert [*dict.fromkeys(name for event in events for name in event)] == ["started", "delta", "finished"]
    text = "".join(event["delta"]["text"] for event in events if "delta" in event)
    assert text == "The capital of France is Paris."


async def test_the_python_program_runs(router: Served) -> None:
    (program,) = blocks(README, "python")
    code = compile(program.text.replace(ADDRESS, router.target), README.name, "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        await asyncio.to_thread(exec, code, {})
    assert printed.getvalue().splitlines() == [
        "The capital of France is Paris. (demo, 6 tokens)",
        "The capital of France is Paris.",
        "2 vectors of 4",
    ]


async def test_the_configuration_is_checked_by_the_command_shown(tmp_path: Path) -> None:
    (example,) = blocks(README, "yaml")
    (tmp_path / "router.yaml").write_text(example.text)
    command = next(
        line for b in blocks(README, "sh") for line in b.text.splitlines() if "check-config" in line
    )
    program, *arguments = shlex.split(command, comments=True)
    process = await asyncio.create_subprocess_exec(
        BIN / Path(program).name,
        *arguments,
        cwd=tmp_path,
        env={**os.environ, "OPENAI_API_KEY": "key", "GEMINI_API_KEY": "key"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.decode().splitlines() == [
        "router.yaml is valid. Its routes:",
        "  chat   qwen, then mini, then flash",
        "  embed  vectors",
    ]


def test_make_has_the_targets_that_are_named() -> None:
    named = {
        match
        for block in blocks(README, "sh")
        for match in re.findall(r"^make (\w+)", block.text, re.MULTILINE)
    }
    makefile = (ROOT / "Makefile").read_text()
    assert named == {"run"}
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand one after the other in ``text``."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
        found.append(value)
    return found
