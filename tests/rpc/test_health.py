"""Health as gRPC defines it, over real channels."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelrouter.v1 import models_pb2
from router_server.rpc.health import HealthBoard
from tests.rpc.scripted import Serving, serving, until

Response = health_pb2.HealthCheckResponse
OURS = "modelrouter.v1.ModelRouterService"


def ask(name: str) -> Any:
    return health_pb2.HealthCheckRequest(service=name)


def stub(it: Serving) -> Any:
    return health_pb2_grpc.HealthStub(it.channel)


def test_a_new_board_is_alive_and_not_ready() -> None:
    board = HealthBoard()
    assert board.state("liveness") == Response.SERVING
    assert {board.state(name) for name in ("", "readiness", OURS)} == {Response.NOT_SERVING}


def test_draining_is_for_good_and_leaves_liveness_and_targets_alone() -> None:
    board = HealthBoard()
    board.set("target/gpt", serving=True)
    board.drain()
    board.set_ready(True)
    assert {board.state(name) for name in ("", "readiness", OURS)} == {Response.NOT_SERVING}
    assert board.state("liveness") == board.state("target/gpt") == Response.SERVING


async def test_check_tells_every_name() -> None:
    async with serving() as it:
        it.health.set("route/chat", serving=True)
        it.health.set("target/gpt", serving=False)
        it.health.set("target/new", serving=None)
        told = {name: (await stub(it).Check(ask(name))).status for name in it.health.states()}
    assert told == {
        "liveness": Response.SERVING,
        "readiness": Response.SERVING,
        "": Response.SERVING,
        OURS: Response.SERVING,
        "route/chat": Response.SERVING,
        "target/gpt": Response.NOT_SERVING,
        "target/new": Response.UNKNOWN,
    }


async def test_check_of_an_unknown_name_is_not_found() -> None:
    async with serving() as it:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(it).Check(ask("route/nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_list_tells_all_names_at_once_or_says_that_they_are_too_many() -> None:
    async with serving() as it:
        listed = (await stub(it).List(health_pb2.HealthListRequest())).statuses
        assert listed["liveness"].status == Response.SERVING
        for number in range(100):
            it.health.set(f"target/{number}", serving=True)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(it).List(health_pb2.HealthListRequest())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_watch_tells_changes_and_names_that_appear_and_vanish() -> None:
    async with serving() as it:
        watch = stub(it).Watch(ask("route/later"))
        assert (await watch.read()).status == Response.SERVICE_UNKNOWN
        it.health.set("route/later", serving=True)
        assert (await watch.read()).status == Response.SERVING
        it.health.set("route/later", serving=False)
        assert (await watch.read()).status == Response.NOT_SERVING
        it.health.remove("route/later")
        assert (await watch.read()).status == Response.SERVICE_UNKNOWN
        watch.cancel()


async def test_watch_says_nothing_where_nothing_changes() -> None:
    board = HealthBoard()
    watch = board.watch("liveness")
    assert await anext(watch) == Response.SERVING
    board.set("liveness", serving=False)
    board.set("liveness", serving=True)
    more = asyncio.ensure_future(anext(watch))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not more.done()
    board.set("liveness", serving=False)
    assert await more == Response.NOT_SERVING
    await watch.aclose()
    assert board.watchers == 0


async def test_a_watcher_that_does_not_listen_delays_nobody_and_hears_the_newest() -> None:
    board = HealthBoard()
    deaf, other = board.watch("route/a"), board.watch("route/a")
    assert await anext(deaf) is None
    assert await anext(other) is None
    for number in range(1_000):
        board.set("route/a", serving=number % 2 == 0)
    assert await anext(other) == Response.NOT_SERVING
    board.set("route/a", serving=True)
    assert await anext(other) == Response.SERVING
    assert await anext(deaf) == Response.SERVING
    await deaf.aclose()
    await other.aclose()


async def test_watchers_that_leave_are_forgotten() -> None:
    async with serving() as it:
        watches = [stub(it).Watch(ask(f"unknown/{number}")) for number in range(50)]
        for watch in watches:
            await watch.read()
        assert it.health.watchers == 50
        for watch in watches:
            watch.cancel()
        await until(lambda: not it.health.watchers)
        assert not it.health._watchers


async def test_health_is_neither_observed_nor_counted() -> None:
    async with serving() as it:
        await stub(it).Check(ask(""))
        watch = stub(it).Watch(ask(""))
        await watch.read()
        assert it.server.inflight == 0
        assert not it.log.starts
        watch.cancel()
        await it.stub.ListModels(models_pb2.ListModelsRequest())
        assert len(it.log.starts) == 1
