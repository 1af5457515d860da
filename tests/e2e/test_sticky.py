"""Users keep their target through whole servers that share a real Redis; sessions do with nothing shared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import pytest

from modelrouter.v1 import models_pb2
from router_server.cli import main
from router_server.commands.exits import Exit
from router_server.config import read
from router_server.core import shared
from tests.e2e.serving import Served, answer, chat, pieces, serving
from tests.state.servers import SharedServer, shared_server
from tests.telemetry.collector import Collector, attributes, collector
from tests.test_succession import reload
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply

OK = json_reply(answer())
DOWN = json_reply({"error": {"message": "down"}}, 503)
USERS = [f"user-{i}" for i in range(10)]
SHARES = "targets: [a, b], sticky: {by: user_id, shares: {a: 0.8, b: 0.2}}"


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is tested is what replicas share, not what they do where the machine is too busy to answer in time.
    monkeypatch.setattr(shared, "CALL_PATIENCE", 10.0)


@pytest.fixture
def redis(folder: Path) -> Iterator[SharedServer]:
    with shared_server(folder) as running:
        yield running


def configuration(a: Upstream, b: Upstream, route: str, redis: str = "null") -> str:
    quick = (
        "retries: 0, health_check: null, breaker: {failure_threshold: 1, open: 300ms, success_threshold: 1}"
    )
    return dedent(f"""
        redis: {redis}
        providers:
          a: {{kind: openai, api_key: k, base_url: "{a.base_url}", {quick}}}
          b: {{kind: openai, api_key: k, base_url: "{b.base_url}", {quick}}}
        targets:
          a: {{provider: a, model: m}}
          b: {{provider: b, model: m}}
        routes:
          chat: {{{route}}}
    """)


async def asked(served: Served, user: str = "", **fields: Any) -> str:
    response = await served.stub.Chat(chat(user_id=user, **fields), timeout=10)
    return str(response.route.target)


async def homes(served: Served) -> dict[str, str]:
    return {user: await asked(served, user) for user in USERS}


async def test_two_servers_allot_by_shares_and_agree(redis: SharedServer) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(OK)
        b.always(OK)
        text = configuration(a, b, SHARES, redis.url)
        async with serving(text) as one, serving(text) as two:
            found = await homes(one)
            assert Counter(found.values()) == {"a": 8, "b": 2}
            assert await homes(two) == found
            redis.kill()
            assert await homes(one) == found, "each goes on with what it remembers"


async def test_users_leave_a_target_that_fails_and_return_when_it_recovers(redis: SharedServer) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(OK)
        b.always(OK)
        text = configuration(a, b, "targets: [a], fallback: [b], sticky: {}", redis.url)
        async with serving(text) as served:
            assert await asked(served, "u") == "a"
            a.always(DOWN)
            assert await asked(served, "u") == "b", "by failover"
            failed = len(a.requests)
            assert await asked(served, "u") == "b"
            assert len(a.requests) == failed, "moved: a is not asked any more"
            a.always(OK)
            async with asyncio.timeout(10):
                while await asked(served, "u") == "b":
                    pass
            assert await asked(served, "u") == "a"


async def test_of_those_who_are_as_busy_the_cheapest_stands_in() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(DOWN)
        b.always(OK)
        text = configuration(a, b, "targets: [a, b, c], sticky: {}").replace("open: 300ms", "open: 10s")
        own = "{{provider: b, model: m, price: {{request: {usd}}}}}"
        dear, cheap = (own.format(usd=usd) for usd in (2, 1))
        text = text.replace("b: {provider: b, model: m}", f"b: {dear}\n  c: {cheap}")
        async with serving(text) as served:
            assert await asked(served, "u") == "b", "a is home, and the route goes on as it is written"
            assert [await asked(served, "u") for _ in range(3)] == ["c"] * 3


@asynccontextmanager
async def held(a: Upstream, served: Served) -> AsyncIterator[None]:
    """Let a call of nobody run at ``a`` meanwhile."""
    a.always((*SSE_HEAD, event(pieces("Once", finish=None)[0]), End.STALL))
    stream = served.stub.StreamChat(chat())
    await stream.read()
    a.always(OK)
    try:
        yield
    finally:
        stream.cancel()
        async with asyncio.timeout(10):
            while not served.idle:
                await served.stub.ListModels(models_pb2.ListModelsRequest())


async def test_users_are_allotted_to_the_less_loaded_as_far_as_shares_allow() -> None:
    async with Upstream() as a, Upstream() as b:
        b.always(OK)
        text = configuration(a, b, "targets: [a, b], sticky: {shares: {a: 1, b: 1}}")
        async with serving(text) as served, held(a, served):
            assert [await asked(served, user) for user in "uvwx"] == ["b", "a", "b", "a"]


async def test_nobody_is_allotted_to_a_target_without_a_free_place() -> None:
    async with Upstream() as a, Upstream() as b:
        b.always(OK)
        text = configuration(a, b, "targets: [a, b], sticky: {}")
        async with serving(text.replace("retries: 0", "retries: 0, max_concurrency: 1", 1)) as served:
            async with held(a, served):
                assert await asked(served, "u") == "b"
            assert [await asked(served, user) for user in "uv"] == ["b", "a"]


async def test_allotments_and_moves_are_counted() -> None:
    async with Upstream() as a, Upstream() as b, collector() as otlp:
        a.always(OK)
        b.always(OK)
        text = configuration(a, b, "targets: [a], fallback: [b], sticky: {}")
        async with serving(f"{text}\ntelemetry: {{otlp_endpoint: '{otlp.url}'}}\n") as served:
            assert [await asked(served, user) for user in ("u", "v")] == ["a", "a"]
            a.always(DOWN)
            assert [await asked(served, "u") for _ in range(3)] == ["b", "b", "b"]
            a.always(OK)
            async with asyncio.timeout(10):
                while await asked(served, "u") == "b":
                    pass
        assert counted(otlp, "modelrouter.sticky.allotments") == {("chat", "a"): 2}
        assert counted(otlp, "modelrouter.sticky.moves") == {("chat", "a", "b"): 1, ("chat", "b", "a"): 1}


def counted(otlp: Collector, name: str) -> dict[tuple[str, ...], int]:
    points = otlp.metrics[name].sum.data_points
    return {tuple(map(str, attributes(point.attributes).values())): point.as_int for point in points}


async def test_shares_change_while_servers_run(
    redis: SharedServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(OK)
        b.always(OK)
        text = configuration(a, b, SHARES, redis.url)
        file = folder / "router.yaml"
        file.write_text(text)

        async def shares(*arguments: str) -> Exit:
            command = ["shares", "chat", *arguments, "--config", str(file)]
            return Exit(await asyncio.to_thread(main, command))

        async with serving(text) as one, serving(text) as two:
            assert Counter((await homes(one)).values()) == {"a": 8, "b": 2}
            assert await shares("a=0", "b=1") == Exit.OK
            assert set((await homes(one)).values()) == set((await homes(two)).values()) == {"b"}
            assert await shares("--reset") == Exit.OK
            assert await asked(two, "new-1") == await asked(two, "new-2") == "a"
    said = capsys.readouterr().out.splitlines()
    assert said == ["chat, as changed:", "  b  100.0%", "chat, as configured:", "  a  80.0%", "  b  20.0%"]


async def test_shares_in_the_file_change_for_new_users_and_for_those_without_a_share() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(OK)
        b.always(OK)

        async def follow(shares: str) -> None:
            route = f"targets: [a, b], sticky: {{by: user_id, shares: {{{shares}}}}}"
            await reload(served, read(configuration(a, b, route), {}, origin="test"))

        async with serving(configuration(a, b, SHARES)) as served:
            before = await homes(served)
            await follow("a: 0.2, b: 0.8")
            assert await homes(served) == before
            new = Counter([await asked(served, f"new-{i}") for i in range(10)])
            assert new == {"a": 2, "b": 8}
            await follow("b: 1")
            assert set((await homes(served)).values()) == {"b"}


@pytest.mark.parametrize(
    ("route", "arguments", "words"),
    [
        (SHARES, ["chat", "c=1"], "c=1: write TARGET=SHARE with one of a, b"),
        (SHARES, ["chat", "a=x"], "a=x: the share is not a number"),
        (SHARES, ["chat", "a=-1"], "a=-1: the share must be 0 or more"),
        (SHARES, ["chat", "a=0"], "every share is 0"),
        (SHARES, ["chatt", "a=1"], "no route is called chatt; there are chat"),
        ("targets: [a, b]", ["chat", "a=1"], "route chat is not sticky; set routes.chat.sticky first"),
        ("targets: [a, b], sticky: {}", ["chat", "a=1"], "route chat has no shares, ordered decides"),
    ],
)
def test_shares_that_make_no_sense_are_refused(
    route: str, arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "router.yaml"
    file.write_text(
        dedent(f"""
            redis: redis://localhost:1
            providers: {{m: {{kind: mock}}}}
            targets: {{a: {{provider: m, model: x}}, b: {{provider: m, model: y}}}}
            routes: {{chat: {{{route}}}}}
        """)
    )
    assert main(["shares", *arguments, "--config", str(file)]) == Exit.USAGE
    assert words in capsys.readouterr().err
    file.write_text(file.read_text().replace("redis: redis://localhost:1", "redis: null"))
    assert main(["shares", *arguments, "--config", str(file)]) == Exit.USAGE


async def test_a_session_stays_where_it_is_with_nothing_shared() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(OK)
        b.always(OK)
        text = configuration(a, b, "targets: [a, b], affinity: {by: 'label:session'}")
        sessions = [{"session": str(i)} for i in range(20)]
        async with serving(text) as one, serving(text) as two:
            places = [await asked(one, labels=labels) for labels in sessions]
            assert set(places) == {"a", "b"}
            assert [await asked(two, labels=labels) for labels in sessions] == places
            a.always(DOWN)
            assert {await asked(one, labels=labels) for labels in sessions} == {"b"}
