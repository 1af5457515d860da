"""A webhook is told of outages, by one of two servers, and a hanging webhook holds nothing up."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import pytest
from redis.asyncio import Redis

from router_server import alerting
from router_server.alerting import Webhook
from router_server.core import shared
from router_server.state.store import key
from tests.e2e.serving import answer, chat, fails, serving
from tests.state.servers import SharedServer, shared_server
from tests.upstream import End, Reply, Upstream, json_reply


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is tested is what replicas share, not what they do where the machine is too busy to answer in time.
    monkeypatch.setattr(shared, "CALL_PATIENCE", 10.0)


@pytest.fixture
def redis() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as path, shared_server(Path(path)) as running:
        yield running


def configuration(a: Upstream, b: Upstream, hook: Upstream, redis: str = "null") -> str:
    return dedent(f"""
        redis: {redis}
        providers:
          a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: {{interval: 500ms}}}}
          b: {{kind: openai, api_key: k, base_url: "{b.base_url}", retries: 0, health_check: null}}
        targets:
          a1: {{provider: a, model: m}}
          b1: {{provider: b, model: m}}
        routes:
          chat: {{targets: [a1, b1]}}
        alerts: {{webhook: "{hook.root_url}/services/very-secret", after: 0s}}
    """)


def said(hook: Upstream) -> list[str]:
    return [request.json["text"] for request in hook.requests]


async def test_of_two_servers_one_tells_that_a_target_is_down_and_one_that_it_is_back(
    redis: SharedServer,
) -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.on("/v1/models", json_reply({"error": {}}, 401)).always(json_reply(answer()))
        b.always(json_reply(answer()))
        hook.always(json_reply({}))
        text = configuration(a, b, hook, redis.url)
        async with serving(text) as one, serving(text) as two, asyncio.timeout(30):
            await hook.requested()
            assert (await one.stub.Chat(chat(), timeout=10)).route.target == "b1"
            a.on("/v1/models", json_reply({"object": "list", "data": []}))
            await hook.requested(2)
            assert one.server.works.state.shared is not two.server.works.state.shared
            report = await one.server.works.state.shared.fields(key("health", f"a~{socket.gethostname()}"))
        assert said(hook) == [
            "Target a1 (model m of a) is down: http_401.",
            "Target a1 (model m of a) is back.",
        ]
        assert hook.requests[0].target == "/services/very-secret"
        last, failed = json.loads(report["last"]), json.loads(report["last_failed"])
        assert (last["well"], last["error"], failed["well"], failed["error"]) == (True, "", False, "http_401")
        assert last["at"] >= failed["at"]
        assert 0 < last["took"] < 10


async def test_an_outage_is_remembered_as_long_as_anybody_sees_it(
    redis: SharedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "_UPHOLD_EVERY", 1)
    told = key("alerts", "target/a1")
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.on("/v1/models", json_reply({"error": {}}, 401))
        hook.always(json_reply({}))
        async with serving(configuration(a, b, hook, redis.url)) as served, asyncio.timeout(30):
            await hook.requested()
            await served.server.works.state.shared.put(told, b"1", 20.0)
            async with Redis.from_url(redis.url) as client:
                while await client.pttl(told) < 100_000:  # noqa: ASYNC110 - Redis tells of no event
                    await asyncio.sleep(0.05)


async def test_of_two_servers_one_tells_of_each_share_of_a_budget(redis: SharedServer) -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        for upstream in (a, b):
            upstream.on("/v1/models", json_reply({"object": "list", "data": []})).always(json_reply(answer()))
        hook.always(json_reply({}))
        text = configuration(a, b, hook, redis.url).replace("after: 0s", "budget: [0.5, 1]")
        text = text.replace("[a1, b1]}", "[a1, b1], budget: {daily_usd: 4.5}}")
        text = text.replace("a1: {provider: a, model: m}", "a1: {provider: a, model: m, price: {request: 1}}")
        async with serving(text) as one, serving(text) as two, asyncio.timeout(30):
            for _ in range(2):
                for server in (one, two):
                    await server.stub.Chat(chat(), timeout=10)
            await hook.requested()
            for server in (one, two):
                assert (await fails(server.stub.Chat(chat(), timeout=10))).reason == "BUDGET_EXCEEDED"
            await hook.requested(2)
            # Whoever hears of it next hears that it was told.
            for server in (one, two):
                await fails(server.stub.Chat(chat(), timeout=10))
        reached = [text.partition("has ")[2].partition(":")[0] for text in said(hook)]
        assert reached == ["reached 50%", "not enough left for every call"]


async def test_people_hear_of_a_call_that_does_not_fit_however_little_is_spent() -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.on("/v1/models", json_reply({"object": "list", "data": []}))
        hook.always(json_reply({}))
        text = configuration(a, b, hook).replace("[a1, b1]}", "[b1], budget: {daily_usd: 1.5}}")
        text = text.replace("b1: {provider: b, model: m}", "b1: {provider: b, model: m, price: {request: 2}}")
        async with serving(text) as served, asyncio.timeout(30):
            assert (await fails(served.stub.Chat(chat(), timeout=10))).reason == "BUDGET_EXCEEDED"
            await hook.requested()
        assert "has not enough left for every call: 0.00 of 1.50 USD are spent" in said(hook)[0]


async def test_a_webhook_that_hangs_costs_no_call_anything() -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.on("/v1/models", json_reply({}, 500)).always(json_reply(answer()))
        b.always(json_reply(answer()))
        hook.always((End.STALL,))
        async with serving(configuration(a, b, hook)) as served, asyncio.timeout(30):
            await hook.requested()
            assert (await served.stub.Chat(chat(), timeout=10)).route.target == "b1"


async def test_others_may_tell_people_something_too() -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.always(json_reply({"object": "list", "data": []}))
        hook.always(json_reply({}))
        async with serving(configuration(a, b, hook)) as served, asyncio.timeout(30):
            alerts = served.server.works.alerting.alerts
            assert alerts is not None
            for _ in range(2):
                await alerts.raised("budget/team/0.8", "Team has spent 80 % of its budget.", life=60.0)
        assert said(hook) == ["Team has spent 80 % of its budget."]


@pytest.mark.parametrize(
    "bad", [json_reply({}, 500), json_reply({}, 302, {"Location": "/else"}), (End.RESET,)]
)
async def test_a_webhook_that_fails_is_tried_again(bad: Reply) -> None:
    async with Upstream() as hook:
        hook.then(bad, bad).always(json_reply({}))
        webhook = Webhook(f"{hook.root_url}/hook", first_pause=0.01)
        await webhook.tell("news")
        await webhook.close()
        assert said(hook) == ["news"] * 3


async def test_a_webhook_that_is_down_is_given_up_without_a_word_of_its_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = Upstream()
    await hook.start()
    url = f"{hook.root_url}/very-secret"
    await hook.stop()
    webhook = Webhook(url, first_pause=0.01)
    await webhook.tell("news")
    await webhook.close()
    assert "could not be sent" in caplog.text
    assert "very-secret" not in caplog.text
