"""A router of one's own does what a server would: shared state, budgets, limits, cache, alerts, engines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import pytest

from router_server import Reason, Router, RouterError
from router_server.config import read
from router_server.core import shared
from router_server.core.endings import Endings
from router_server.core.observer import CallRecord
from tests.e2e.serving import CHAT_PATH, answer, chat, fails, serving
from tests.engines.fakes import alive, fake, until
from tests.state.servers import SharedServer, shared_server
from tests.upstream import Upstream, json_reply


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a socket has at most 107 bytes.
    with TemporaryDirectory(prefix="mr") as name:
        yield Path(name)


@pytest.fixture
def redis(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedServer]:
    # What is tested is what is shared, not what is done where the machine is too busy to answer in time.
    monkeypatch.setattr(shared, "CALL_PATIENCE", 10.0)
    with shared_server(folder) as running:
        yield running


def config(route: str, redis: str = "null", more: str = "") -> str:
    return dedent(f"""
        redis: {redis}
        providers:
          a: {{kind: mock, reply: "from a"}}
          b: {{kind: mock, reply: "from b"}}
        targets:
          a: {{provider: a, model: m, max_output_tokens: 10, price: {{request: 1}}}}
          b: {{provider: b, model: m, max_output_tokens: 10, price: {{request: 1}}}}
        routes:
          chat: {{targets: [a, b], {route}}}
        {more}
    """)


def router(text: str) -> Router:
    return Router(read(text, {}, origin="test"))


async def test_users_keep_their_target_here_and_at_a_server(redis: SharedServer) -> None:
    text = config("sticky: {by: user_id, shares: {a: 0.5, b: 0.5}}", redis.url)
    users = [f"user-{i}" for i in range(10)]
    async with router(text) as own, serving(text) as server:
        homes = {user: (await own.chat("hi", user_id=user)).target for user in users}
        assert Counter(homes.values()) == {"a": 5, "b": 5}
        for user, home in homes.items():
            assert (await server.stub.Chat(chat(user_id=user))).route.target == home


async def test_a_budget_and_a_limit_are_one_here_and_at_a_server(redis: SharedServer) -> None:
    spent = config("budget: {daily_usd: 2.5}", redis.url)
    async with router(spent) as own, serving(spent) as server:
        await own.chat("hi")
        await server.stub.Chat(chat())
        with pytest.raises(RouterError) as refused:
            await own.chat("hi")
        assert refused.value.reason is Reason.BUDGET_EXCEEDED
        assert own.stats().cost_usd == 1
    limited = config("limits: {requests_per_minute: 2}", redis.url)
    async with router(limited) as own, serving(limited) as server:
        await own.chat("hi")
        await server.stub.Chat(chat())
        assert (await fails(server.stub.Chat(chat()))).reason == "QUOTA_EXCEEDED"
        with pytest.raises(RouterError) as refused:
            await own.chat("hi")
        assert refused.value.reason is Reason.QUOTA_EXCEEDED


def test_users_are_limited_one_by_one() -> None:
    with router(config("", more="limits: {user: {requests_per_minute: 1}}")) as own:
        assert own.chat("hi", user_id="u").target == "a"
        assert own.chat("hi", user_id="v").target == "a"
        with pytest.raises(RouterError):
            own.chat("hi", user_id="u")


async def test_sessions_stay_by_their_label() -> None:
    async with router(config("affinity: {by: 'label:session'}")) as own:
        first = [(await own.chat("hi", labels={"session": str(i)})).target for i in range(10)]
        assert set(first) == {"a", "b"}
        assert [(await own.chat("hi", labels={"session": str(i)})).target for i in range(10)] == first


async def test_answers_are_kept_and_told_of_outages_are_people() -> None:
    async with Upstream() as up, Upstream() as hook:
        up.on("/v1/models", json_reply({"error": {}}, 500)).on(CHAT_PATH, json_reply(answer("kept")))
        hook.always(json_reply({}))
        text = dedent(f"""
            providers: {{up: {{kind: openai, api_key: k, base_url: "{up.base_url}", retries: 0}}}}
            targets: {{up: {{provider: up, model: m}}}}
            routes: {{chat: {{targets: [up], cache: {{ttl: 1h}}}}}}
            alerts: {{webhook: "{hook.root_url}/very-secret", after: 0s}}
        """)
        async with router(text) as own, asyncio.timeout(30):
            await hook.requested()
            assert hook.requests[0].json["text"] == "Target up (model m of up) is down: http_500."
            assert own.stats().healthy_targets == ()
            # It is put away beside the answer: who asks again at once may be a little early.
            while not (reply := await own.chat("hi", temperature=0)).result.trail.cache_hit:
                pass
            assert reply.text == "kept"


async def test_an_engine_runs_as_long_as_the_router(folder: Path) -> None:
    engine = fake(folder)
    text = dedent(f"""
        providers: {{local: {{kind: vllm, serve: {engine.serve(while_starting="queue")}}}}}
        targets: {{t: {{provider: local, model: fake-model}}}}
        routes: {{chat: {{targets: [t]}}}}
    """)
    async with router(text) as own:
        assert (await own.chat("hi")).text == f"fake-model in {engine.lives[0][0]}"
    assert not alive(engine.lives[0][0])
    with router(text) as blocking:
        assert blocking.chat("hi").text == f"fake-model in {engine.lives[1][0]}"
    await until(lambda: not alive(engine.lives[1][0]))


async def test_one_who_wants_to_see_every_call_is_told() -> None:
    seen: list[object] = []
    text = read(config(""), {}, origin="test")
    async with Router(text, observers=[Endings(seen.append)]) as own:
        await own.chat("hi", user_id="u", labels={"x": "y"})
    (record,) = [one for one in seen if isinstance(one, CallRecord)]
    assert (record.user_id, record.labels, record.target) == ("u", {"x": "y"}, "a")
