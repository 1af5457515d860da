"""``check-health``: a table of every provider, and an exit code for what is required."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from textwrap import dedent

import pytest

from router_server.cli import main
from router_server.commands.exits import Exit
from tests.upstream import End, Upstream, json_reply


def file_of(
    folder: Path, well: Upstream, unwell: Upstream, *, required: bool = False, timeout: str = "5s"
) -> Path:
    file = folder / "router.yaml"
    file.write_text(
        dedent(f"""
            providers:
              good: {{kind: openai, api_key: k, base_url: "{well.base_url}"}}
              bad:
                kind: openai
                api_key: very-secret
                base_url: "{unwell.base_url}"
                required: {str(required).lower()}
                health_check: {{timeout: {timeout}}}
              none: {{kind: mock}}
            targets:
              t: {{provider: good, model: m}}
              u: {{provider: bad, model: m}}
              v: {{provider: none, model: m}}
            routes: {{chat: {{targets: [t, u, v]}}}}
        """)
    )
    return file


async def run(*arguments: str) -> Exit:
    return Exit(await asyncio.to_thread(main, ["check-health", *arguments]))


async def test_all_providers_are_asked_once_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Upstream() as well, Upstream() as unwell:
        well.always(json_reply({"object": "list", "data": []}))
        unwell.always(json_reply({"error": {"message": "very-secret"}}, 401))
        assert await run("--config", str(file_of(tmp_path, well, unwell))) == Exit.OK
        asked = [(r.method, r.path, r.body) for r in (*well.requests, *unwell.requests)]
        assert asked == [("GET", "/v1/models", b"")] * 2, "no token is spent"
        out = capsys.readouterr().out
        rows = [line.split() for line in out.splitlines()]
        assert [(row[0], row[1]) for row in rows] == [("good", "well"), ("bad", "unwell"), ("none", "well")]
        assert rows[1][-1] == "http_401"
        assert all(float(row[2]) >= 0 and row[3] == "ms" for row in rows)
        assert "very-secret" not in out


async def test_what_is_required_and_down_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Upstream() as well, Upstream() as unwell:
        well.always(json_reply({"object": "list", "data": []}))
        unwell.always((End.STALL,))
        file = file_of(tmp_path, well, unwell, required=True, timeout="200ms")
        assert await run("--config", str(file), "--json") == Exit.NOT_READY
        found = {row["provider"]: row for row in json.loads(capsys.readouterr().out)["providers"]}
        assert (found["bad"]["state"], found["bad"]["error"], found["bad"]["required"]) == (
            "unwell",
            "timeout",
            True,
        )
        assert found["bad"]["took_ms"] >= 200
        await unwell.stop()
        assert await run("--config", str(file)) == Exit.NOT_READY
        assert "refused" in capsys.readouterr().out
        unwell.always(json_reply({}, 404))
        await unwell.start()
        assert await run("--config", str(file)) == Exit.OK
        assert "unknown" in capsys.readouterr().out


async def test_an_engine_is_for_its_server_to_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(
        dedent("""
            providers: {local: {kind: vllm, serve: {model: m}, required: true}}
            targets: {t: {provider: local, model: m}}
            routes: {chat: {targets: [t]}}
        """)
    )
    assert await run("--config", str(file)) == Exit.OK
    assert capsys.readouterr().out.split() == [
        *("local", "unknown", "0.0", "ms", "required", "run_by_the_server")
    ]


async def test_a_file_with_mistakes_asks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "router.yaml"
    file.write_text("providers: {}\n")
    assert await run("--config", str(file)) == Exit.CONFIGURATION
    assert "declares none" in capsys.readouterr().err
