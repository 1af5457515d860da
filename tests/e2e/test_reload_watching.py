"""Who is told of outages, and what is logged, changes while the server runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.serving import answer, chat
from tests.e2e.test_reload import Reloading, config, reloading
from tests.upstream import Upstream, json_reply

_PATIENCE = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="mr") as name:
        yield Path(name)


def watched(up: Upstream, more: str) -> str:
    provider = (
        f'up: {{kind: openai, api_key: k, base_url: "{up.base_url}", health_check: {{interval: 300ms}}}}'
    )
    text = config("x", providers=provider, targets="u: {provider: up, model: m}", routes="up: {targets: [u]}")
    return f"{text}\n        {more}\n"


def told(hook: Upstream) -> list[str]:
    return [request.json["text"] for request in hook.requests]


def to(hook: Upstream) -> str:
    return f'alerts: {{webhook: "{hook.root_url}/very-secret", after: 0s}}'


async def test_alerts_begin_move_to_another_webhook_and_end(folder: Path) -> None:
    async with Upstream() as up, Upstream() as first, Upstream() as second:
        well = json_reply({"object": "list", "data": []})
        up.on("/v1/models", json_reply({"error": {}}, 500)).always(json_reply(answer()))
        first.always(json_reply({}))
        second.always(json_reply({}))
        async with reloading(folder, watched(up, "")) as it, asyncio.timeout(2 * _PATIENCE):
            assert "changed: alerts" in await it.reload(watched(up, to(first)))
            await first.requested()
            assert "changed: alerts" in await it.reload(watched(up, to(second)))
            up.on("/v1/models", well)
            await second.requested()
            assert told(first) == ["Target u (model m of up) is down: http_500."]
            assert told(second) == ["Target u (model m of up) is back."]
            assert "changed: alerts" in await it.reload(watched(up, ""))
            checked = len(up.requests)
            up.on("/v1/models", json_reply({"error": {}}, 500))
            await up.requested(checked + 3)
            assert len(told(first)) == len(told(second)) == 1
            assert "very-secret" not in it.server.stderr


async def test_a_target_that_is_removed_while_it_is_down_is_told_of_and_may_come_again(folder: Path) -> None:
    async with Upstream() as up, Upstream() as hook:
        up.on("/v1/models", json_reply({"error": {}}, 500))
        hook.always(json_reply({}))
        async with reloading(folder, watched(up, to(hook))) as it, asyncio.timeout(2 * _PATIENCE):
            await hook.requested()
            await it.reload(f"{config('x')}\n        {to(hook)}\n")
            await hook.requested(2)
            await it.reload(watched(up, to(hook)))
            await hook.requested(3)
        down = "Target u (model m of up) is down: http_500."
        gone = "Target u, which was down, is in the configuration no more."
        assert told(hook) == [down, gone, down]


async def test_budgets_are_told_of_at_the_shares_of_the_moment(folder: Path) -> None:
    async with Upstream() as hook:
        hook.always(json_reply({}))

        def budget(share: str) -> str:
            dear = config("answer").replace("model: x}", "model: x, price: {request: 1}}", 1)
            limited = dear.replace("{targets: [t]}", "{targets: [t], budget: {daily_usd: 10}}")
            return f"{limited}\n        {to(hook).replace('after: 0s', f'budget: [{share}]')}\n"

        async with reloading(folder, budget("0.9")) as it, asyncio.timeout(2 * _PATIENCE):
            for _ in range(3):
                await it.ask()
            await it.reload(budget("0.3"))
            await it.ask()
            await hook.requested()
            assert [text.partition(" (")[0] for text in told(hook)] == ["The daily budget of route/chat"]
            assert "has reached 30%" in told(hook)[0]


async def test_the_log_says_more_or_less_as_the_file_does(folder: Path) -> None:
    def level(name: str) -> str:
        return f"{config(name)}\n        telemetry: {{log: {{level: {name}}}, sample_ratio: 0.5}}\n"

    async with reloading(folder, config("x")) as it:
        assert "restart for them: telemetry.sample_ratio" in await it.reload(level("debug"))
        it.write(level("error"))
        it.server.signal(signal.SIGHUP)
        async with asyncio.timeout(_PATIENCE):
            while await it.ask() != "error":  # the log does not tell
                pass
        await call(it, "call-kept-quiet")
        assert "changed: providers.m, telemetry" in await it.reload(level("info"))
        await call(it, "call-said-aloud")
        async with asyncio.timeout(_PATIENCE):
            while "call-said-aloud" not in it.server.stderr:  # noqa: ASYNC110 - another process tells, by its output
                await asyncio.sleep(0.02)
        assert "call-kept-quiet" not in it.server.stderr


async def call(it: Reloading, request_id: str) -> None:
    await it.server.stub.Chat(chat(), metadata=(("x-request-id", request_id),))
