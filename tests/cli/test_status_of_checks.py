"""`router-server status` shows what came of the checks of providers, whichever replica made them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from router_server.cli import main
from router_server.surroundings import process_name
from tests.e2e.serving import Served, serving
from tests.state.servers import shared_server
from tests.upstream import Upstream, json_reply

SECRET = "very-secret words of the upstream"
REFUSED = json_reply({"error": {"message": SECRET}}, 401)
WELL = json_reply({"object": "list", "data": []})
CONFIG = """
redis: {redis}
providers: {{a: {{kind: openai, api_key: very-secret, base_url: "{url}", health_check: {{interval: 600ms}}}}}}
targets: {{t: {{provider: a, model: m}}}}
routes: {{chat: {{targets: [t]}}}}
"""


async def told(served: Served, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    target = f"127.0.0.1:{served.server.rpc.port}"
    await asyncio.to_thread(main, ["status", "--target", target, "--timeout", "30", *options])
    return capsys.readouterr().out


async def checks_of(served: Served, capsys: pytest.CaptureFixture[str], state: str) -> dict[str, Any]:
    """Ask until the provider's state is ``state``."""
    async with asyncio.timeout(20):
        while True:
            said = await told(served, capsys, "--json")
            assert SECRET not in said
            (provider,) = json.loads(said)["providers"]
            if provider["state"] == state:
                return dict(provider)


async def test_checks_are_shown_with_their_time_their_reason_and_who_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with shared_server(tmp_path) as redis:
        async with Upstream() as a:
            a.on("/v1/models", REFUSED)
            async with serving(CONFIG.format(redis=redis.url, url=a.base_url)) as served:
                failed = await checks_of(served, capsys, "not_serving")
                assert failed["name"] == "a"
                assert failed["last_check"] == failed["last_failed_check"]
                assert failed["last_check"]["error"] == "http_401"
                assert failed["last_check"]["took"] > 0
                assert failed["last_check"]["by"] == process_name()
                line = next(one for one in (await told(served, capsys)).splitlines() if "provider a" in one)
                assert line.startswith("  provider a  not_serving  checked 0 s ago in ")
                assert line.endswith(f" ms by {process_name()}: http_401")
                a.on("/v1/models", WELL)
                well = await checks_of(served, capsys, "serving")
                assert (well["last_check"]["error"], well["last_check"]["well"]) == ("", True)
                assert well["last_check"]["at"] > well["last_failed_check"]["at"]
                assert "s ago: http_401" in await told(served, capsys)


async def test_what_another_replica_has_found_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_server(tmp_path) as redis:
        async with Upstream() as a:
            a.on("/v1/models", WELL)
            config = CONFIG.format(redis=redis.url, url=a.base_url).replace("600ms", "1h")
            monkeypatch.setattr("router_server.assembly.process_name", lambda: "node-1:7")
            async with serving(config) as one:
                await checks_of(one, capsys, "serving")
                monkeypatch.setattr("router_server.assembly.process_name", lambda: "node-2:8")
                async with serving(config) as two:
                    assert (await checks_of(two, capsys, "serving"))["last_check"]["by"] == "node-1:7"
