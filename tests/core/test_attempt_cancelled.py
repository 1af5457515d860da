"""Whatever turn of the loop a call is cancelled in, it holds nothing afterwards; the next one is served."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from router_server.core.breaker import BreakerSettings
from router_server.core.errors import Outcome, RouterError
from router_server.core.limiter import Limits
from router_server.core.own_limit import OwnLimit
from tests.clock import virtual_time
from tests.core.scripted import Act, Rig, ask, collect, done, fails, invocation, rig, said
from tests.core.test_reading import RESTART, handing

TURNS = 60
"""More than any of these calls takes until its first pause."""


class TurnsLater:
    """An own limit that takes two turns of the loop to answer, and may refuse; counts what it gave."""

    def __init__(self, refusal: BaseException | None) -> None:
        self.reserved = 0
        self._refusal = refusal

    async def reserve(self, *_asked: object) -> TurnsLater:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._refusal is not None:
            raise self._refusal
        self.reserved += 1
        return self

    def settle(self, **_used: int) -> None:
        self.reserved -= 1


def begin(made: Rig, *, unary: bool) -> asyncio.Task[Any]:
    if unary:
        return asyncio.ensure_future(made.router.chat(ask(), invocation()))
    return asyncio.ensure_future(collect(made.router.stream(ask(routing=RESTART), invocation())))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("refusal", [None, fails(Outcome.SATURATED), KeyError("a bug")], ids=str)
@pytest.mark.parametrize("unary", [True, False], ids=["unary", "stream"])
@pytest.mark.parametrize("places", [1, 2])
@virtual_time
async def test_nothing_is_held(places: int, unary: bool, refusal: BaseException | None) -> None:
    for turn in range(TURNS):
        broken: list[Act] = [said("a"), said("b"), 1.0, said("c"), fails(Outcome.UNAVAILABLE)]
        made, _ = handing(
            [broken, [said("a"), done()]],
            [[said("q"), done()]],
            limits=Limits(max_concurrency=places),
            breaker=BreakerSettings(failure_threshold=1),
        )
        limit = TurnsLater(refusal)
        for upstream in made.upstreams.values():
            upstream.own_limit = cast("OwnLimit", limit)
        calls = [begin(made, unary=unary) for _ in range(3)]
        await turns(turn)
        calls[turn % 3].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert made.idle, turn
        assert limit.reserved == 0, turn
        if refusal is None:
            await asyncio.sleep(30)
            await asyncio.gather(begin(made, unary=unary), begin(made, unary=unary))


@virtual_time
async def test_a_probe_is_given_back() -> None:
    for turn in range(TURNS):
        answer: list[Act] = [said("a"), 1.0, said("b"), done()]
        made = rig(
            [[fails(Outcome.UNAVAILABLE)], answer],
            retries=0,
            breaker=BreakerSettings(failure_threshold=1, success_threshold=1),
        )
        with pytest.raises(RouterError):
            await made.router.chat(ask(), invocation())
        await asyncio.sleep(11)
        assert made.state("a") == "half_open"
        probe = begin(made, unary=False)
        await turns(turn)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert made.targets["a"].breaker.admits, turn
        await collect(made.router.stream(ask(), invocation()))
        assert made.state("a") == "closed"
