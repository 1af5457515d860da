"""Node speaks the contract through its ordinary generator, unpatched, with a real server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.node.conftest import Example, npm


async def test_chat(example: Example) -> None:
    ended = await example("chat", "What is the capital of France?")

    assert ended.output == "Paris is the capital of France.\n"
    assert ended.errors == "steady-tiny used 6 tokens\n"
    assert ended.code == 0


async def test_a_stream_that_breaks_is_restarted(example: Example) -> None:
    ended = await example("stream", "What is the capital of France?")

    assert ended.output == "Lyon, I\n[steady-tiny starts over]\nParis is the capital of France.\n"
    assert ended.errors == "frail-tiny answers\nsteady-tiny finished: FINISH_REASON_STOP\n"
    assert ended.code == 0


async def test_embed(example: Example) -> None:
    ended = await example("embed", "a cat", "a kitten")

    lines = ended.output.splitlines()
    assert [line.split(",")[0] for line in lines] == ["a cat: 8 numbers", "a kitten: 8 numbers"]
    assert ended.code == 0


async def test_a_failure_says_why(example: Example) -> None:
    ended = await example("--model", "down", "chat", "hello")

    assert ended.output == ""
    assert ended.errors.startswith("14 UNAVAILABLE: ")
    assert ended.code == 1


async def test_a_wrong_command_shows_the_usage(example: Example) -> None:
    ended = await example("sing")

    assert ended.errors == "usage: node src/example.ts [--model ROUTE] chat|stream|embed TEXT…\n"
    assert ended.code == 2


def test_the_generated_types_fit_the_client(client: Path) -> None:
    checked = npm(client, "run", "check")

    assert checked.returncode == 0, checked.stdout


def test_a_type_error_would_be_found(client: Path) -> None:
    (client / "src/wrong.ts").write_text(
        'import { connect } from "./client.ts";\nconnect("x").chat({ modell: "chat" }, () => undefined);\n'
    )

    checked = npm(client, "run", "check")
    (client / "src/wrong.ts").unlink()

    assert "'modell' does not exist in type 'ChatRequest'" in checked.stdout
    assert checked.returncode != 0


def test_the_lock_file_names_no_registry(client: Path) -> None:
    packages = json.loads((client / "package-lock.json").read_text())["packages"]

    assert len(packages) > 10
    assert not [name for name, package in packages.items() if "resolved" in package]
