"""One target with several endpoints, in virtual time; over sockets they are in tests/e2e."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from router_server.core.checks import Checks
from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.limiter import Limiter, Limits
from router_server.core.provider import EngineLoad
from router_server.core.replicas import ReplicatedTarget
from router_server.core.route import Destination, Route
from router_server.core.router import Router
from router_server.core.strategies import Choice, LeastInflight
from router_server.core.target import Target, TargetSettings, Upstream
from router_server.core.types import Routing
from tests.clock import virtual_time
from tests.core.scripted import ALL, Act, Recorder, ScriptedProvider, ask, done, fails, invocation, said

HELLO: list[Sequence[Act]] = [[said("hello"), done()]]
SLOW: list[Sequence[Act]] = [[20.0, said("hello"), done()]]
DOWN: list[Sequence[Act]] = [[fails(Outcome.UNAVAILABLE)]]


@dataclass
class Fleet:
    """Target ``t`` with an endpoint for each list of scripts, then target ``other``."""

    router: Router
    endpoints: list[Target]
    providers: list[ScriptedProvider]
    other: ScriptedProvider
    recorder: Recorder

    @property
    def asked(self) -> list[int]:
        return [len(provider.calls) for provider in self.providers]


def fleet(*scripts: list[Sequence[Act]], limits: Limits | None = None, strategy: bool = False) -> Fleet:
    clock = asyncio.get_running_loop().time
    providers = [ScriptedProvider(scripts=list(script)) for script in scripts]
    upstreams = [
        Upstream("p", "scripted", one, Limiter(limits or Limits(), clock), f"e{i}", check=None)
        for i, one in enumerate(providers)
    ]
    settings = TargetSettings("t", "model", ALL)
    endpoints = [Target(settings, upstream, clock) for upstream in upstreams]
    other = ScriptedProvider(scripts=list(HELLO))
    spare = Upstream("q", "scripted", other, Limiter(Limits(), clock), check=None)
    targets: dict[str, Destination] = {
        "t": ReplicatedTarget(settings, endpoints),
        "other": Target(TargetSettings("other", "model", ALL), spare, clock),
    }
    recorder = Recorder()
    checks = Checks([*upstreams, spare], lambda u: [e for e in endpoints if e.upstream is u], lambda: None)
    route = Route("r", tuple(targets.values()))
    if strategy:
        weights = {"t": 1.0, "other": 1.0}
        route = Route("r", route.targets, strategy=Choice(LeastInflight(weights, targets), targets))
    return Fleet(Router([route], checks, recorder, clock=clock), endpoints, providers, other, recorder)


@virtual_time
async def test_another_endpoint_is_the_retry_and_is_not_waited_for() -> None:
    f = fleet(DOWN, DOWN, DOWN)
    began = asyncio.get_running_loop().time()
    result = await f.router.chat(ask(), invocation())
    assert result.trail.target == "other"
    assert sorted(f.asked) == [1, 1, 2], "the last one is asked once more, as a single endpoint would be"
    assert asyncio.get_running_loop().time() - began <= 0.25, "one backoff"
    assert [(x.from_target, x.to_target) for x in f.recorder.failovers] == [("t", "other")]


@virtual_time
async def test_endpoints_are_tried_also_where_failover_is_not_wanted() -> None:
    f = fleet(DOWN, HELLO, DOWN)
    result = await f.router.chat(ask(routing=Routing(allow_failover=False)), invocation())
    assert (result.trail.target, result.trail.fallback) == ("t", False)
    assert [x.target for x in result.trail.attempts][-1] == "t"


@virtual_time
async def test_a_caller_names_the_target_not_the_endpoint() -> None:
    f = fleet(HELLO, HELLO)
    result = await f.router.chat(ask(routing=Routing(allowed_targets=("t",))), invocation())
    assert result.trail.target == "t"
    with pytest.raises(RouterError) as error:
        await f.router.chat(ask(routing=Routing(allowed_targets=("t@e0",))), invocation())
    assert error.value.reason is Reason.INVALID_REQUEST


@virtual_time
async def test_a_call_waits_in_one_endpoints_queue_not_in_one_after_the_other() -> None:
    f = fleet(SLOW, SLOW, SLOW, limits=Limits(1, 8, queue_timeout=5.0))
    held = [asyncio.create_task(f.router.chat(ask(), invocation())) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert f.asked == [1, 1, 1]
    began = asyncio.get_running_loop().time()
    result = await f.router.chat(ask(), invocation())
    assert result.trail.target == "other"
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    await asyncio.gather(*held)


@virtual_time
async def test_an_endpoint_that_rests_is_passed_over_and_all_of_them_are_one_skip() -> None:
    limited: list[Sequence[Act]] = [[fails(Outcome.RATE_LIMITED, retry_after=20.0)]]
    f = fleet(limited, limited, limited)
    assert (await f.router.chat(ask(), invocation())).trail.target == "other"
    assert f.asked == [1, 1, 1]
    trail = (await f.router.chat(ask(), invocation())).trail
    assert [(x.target, x.outcome) for x in trail.attempts] == [
        ("t", Outcome.RATE_LIMITED),
        ("other", Outcome.OK),
    ]
    assert f.asked == [1, 1, 1]


@virtual_time
async def test_each_endpoint_has_a_breaker_of_its_own() -> None:
    f = fleet(DOWN, HELLO)
    for _ in range(20):
        assert (await f.router.chat(ask(), invocation())).trail.target == "t"
    assert [str(e.breaker.state) for e in f.endpoints] == ["open", "closed"]
    assert f.asked[0] == 5
    assert {x[0] for x in f.recorder.breakers} <= {"t@e0"}


@virtual_time
async def test_a_strategy_weighs_the_target_by_what_a_call_would_meet() -> None:
    f = fleet(SLOW, SLOW, strategy=True)
    f.other.scripts = list(SLOW)
    calls = [asyncio.create_task(f.router.chat(ask(), invocation())) for _ in range(6)]
    await asyncio.sleep(0.1)
    assert sorted([*f.asked, len(f.other.calls)]) == [2, 2, 2]
    await asyncio.gather(*calls)


@virtual_time
async def test_among_equals_the_one_with_more_cache_left_is_asked() -> None:
    f = fleet(HELLO, HELLO, HELLO)
    for endpoint, used in zip(f.endpoints, (0.8, 0.6, 0.2), strict=True):
        endpoint.upstream.load.told(EngineLoad(3, 0, used), 0)
    await f.router.chat(ask(), invocation())
    assert f.asked == [0, 0, 1]
