from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import pytest

from router_server.core.errors import BreakerEffect, Outcome, RouterError
from router_server.core.target import HealthCheck
from router_server.state.memory import MemoryStore
from router_server.state.rota import SharedRota
from tests.clock import virtual_time
from tests.core.scripted import Rig, ask, done, fails, invocation, rig, said

HELLO = [said("hello"), done()]


@asynccontextmanager
async def checked(r: Rig) -> AsyncIterator[None]:
    running = asyncio.create_task(r.checks.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def fail(r: Rig, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(RouterError):
            await r.router.chat(ask(), invocation(0.5))


@virtual_time
async def test_checks_come_at_their_interval_and_more_often_while_unwell() -> None:
    r = rig([HELLO], check=HealthCheck(60.0, 5.0))
    r.providers["a"].check_answers = [True]
    async with checked(r):
        await asyncio.sleep(250)
        assert 4 <= r.providers["a"].checks <= 5
        r.providers["a"].check_answers = [False]
        await asyncio.sleep(66)
        before = r.providers["a"].checks
        await asyncio.sleep(60)
        assert r.providers["a"].checks - before >= 5


@virtual_time
async def test_an_unwell_provider_is_passed_over_until_a_check_passes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "router_server")
    r = rig([HELLO], [HELLO], check=HealthCheck())
    r.providers["a"].check_answers = [False]
    async with checked(r):
        await asyncio.sleep(1)
        result = await r.router.chat(ask(), invocation())
        assert (result.trail.target, result.trail.attempts[0].outcome) == ("b", Outcome.CIRCUIT_OPEN)
        r.providers["a"].check_answers = [True]
        await asyncio.sleep(12)
        assert (await r.router.chat(ask(), invocation())).trail.target == "a"
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 2, "once when it begins to fail, once when it passes"
    assert "Provider a fails its check (unwell" in said[0]
    assert "Provider a passes its check again" in said[1]


@virtual_time
async def test_a_check_that_says_nothing_changes_nothing() -> None:
    r = rig([HELLO], check=HealthCheck())
    async with checked(r):
        await asyncio.sleep(200)
        assert r.upstreams["a"].healthy is None
        assert r.targets["a"].serving


@virtual_time
async def test_a_check_that_hangs_has_failed() -> None:
    r = rig([HELLO], check=HealthCheck(60.0, 5.0))

    async def hang() -> bool:
        await asyncio.sleep(1000)
        return True

    r.providers["a"].check = hang  # type: ignore[method-assign]
    async with checked(r):
        await asyncio.sleep(5.5)
        assert r.upstreams["a"].healthy is False


@virtual_time
async def test_a_passing_check_ends_the_open_period_early() -> None:
    r = rig([[fails(Outcome.MALFORMED)]], check=HealthCheck(3.0, 1.0))
    r.providers["a"].check_answers = [True]
    async with checked(r):
        await asyncio.sleep(0.1)
        await fail(r, 5)
        assert r.state("a") == "open"
        await asyncio.sleep(3.3)
        assert r.state("a") == "half_open"


@pytest.mark.parametrize(("answer", "state"), [(True, "closed"), (False, "open")])
@virtual_time
async def test_a_forbidden_target_is_checked_at_once(answer: bool, state: str) -> None:
    r = rig([[fails(Outcome.AUTH, status=403)]], check=HealthCheck())
    r.providers["a"].check_answers = [None, answer]
    async with checked(r):
        await asyncio.sleep(1)
        await fail(r)
        await asyncio.sleep(0.1)
        assert r.providers["a"].checks == 2
        assert (r.state("a"), r.targets["a"].serving) == (state, False)


@virtual_time
async def test_a_missing_model_counts_only_when_the_check_fails_too() -> None:
    r = rig([[fails(Outcome.MODEL_MISSING, status=404)]], check=HealthCheck())
    async with checked(r):
        await asyncio.sleep(1)
        r.providers["a"].check_answers = [True]
        for _ in range(6):
            await fail(r)
            await asyncio.sleep(0.1)
        assert r.state("a") == "closed"
        r.providers["a"].check_answers = [False]
        for _ in range(5):
            await fail(r)
            await asyncio.sleep(0.1)
        assert r.state("a") == "open"


@virtual_time
async def test_a_benched_target_comes_back_by_itself_where_nothing_is_checked() -> None:
    r = rig([[fails(Outcome.AUTH, status=403)], HELLO], [HELLO])
    assert (await r.router.chat(ask(), invocation())).trail.target == "b"
    await asyncio.sleep(59)
    assert (await r.router.chat(ask(), invocation())).trail.target == "b"
    await asyncio.sleep(2)
    assert (await r.router.chat(ask(), invocation())).trail.target == "a"


@virtual_time
async def test_down_for_a_minute_and_back_in_use_soon_after() -> None:
    r = rig([[fails(Outcome.UNAVAILABLE, "refused")]], [HELLO], check=HealthCheck())
    r.providers["a"].check_answers = [False]
    loop = asyncio.get_running_loop()
    async with checked(r):
        await asyncio.sleep(1)
        back = None
        while loop.time() < 120:
            if loop.time() >= 60:
                r.providers["a"].scripts = [HELLO]
                r.providers["a"].check_answers = [True]
            result = await r.router.chat(ask(), invocation())
            if result.trail.target == "a" and back is None:
                back = loop.time()
            await asyncio.sleep(4)
        assert back is not None
        assert 60 <= back <= 90


@virtual_time
async def test_a_broken_check_is_a_failed_one_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    r = rig([HELLO], [HELLO], check=HealthCheck())
    r.providers["b"].check_answers = [True]

    async def broken() -> bool:
        raise ValueError

    r.providers["a"].check = broken  # type: ignore[method-assign]
    async with checked(r):
        await asyncio.sleep(1)
    assert (r.upstreams["a"].healthy, r.upstreams["b"].healthy) == (False, True)
    assert "active check of provider a" in caplog.text


@virtual_time
async def test_a_required_provider_is_ready_once_it_was_asked_and_did_not_say_no() -> None:
    r = rig([HELLO], check=HealthCheck())
    seen = [r.upstreams["a"].ready]
    async with checked(r):
        await asyncio.sleep(1)
        seen.append(r.upstreams["a"].ready)
        r.providers["a"].check_answers = [False]
        await asyncio.sleep(70)
        seen.append(r.upstreams["a"].ready)
    assert seen == [False, True, False]


@pytest.mark.parametrize("status", [403, 404])
@virtual_time
async def test_a_refused_target_rests_until_the_next_check_that_comes_by_itself(status: int) -> None:
    outcome = Outcome.AUTH if status == 403 else Outcome.MODEL_MISSING
    r = rig([[fails(outcome, status=status)]], [HELLO], check=HealthCheck())
    r.providers["a"].check_answers = [True]
    async with checked(r):
        await asyncio.sleep(1)
        for _ in range(10):
            assert (await r.router.chat(ask(), invocation())).trail.target == "b"
            await asyncio.sleep(1)
        assert (len(r.providers["a"].calls), r.providers["a"].checks) == (1, 2)
        await asyncio.sleep(66)
        await r.router.chat(ask(), invocation())
        assert len(r.providers["a"].calls) == 2


@virtual_time
async def test_a_check_that_was_under_way_confirms_nothing() -> None:
    r = rig([[fails(Outcome.AUTH, status=403)]], check=HealthCheck())
    answers = iter([True, False])

    async def slow() -> bool:
        r.providers["a"].checks += 1
        answer = next(answers)
        await asyncio.sleep(2)
        return answer

    r.providers["a"].check = slow  # type: ignore[method-assign]
    async with checked(r):
        await asyncio.sleep(1)
        await fail(r)
        await asyncio.sleep(1.5)
        assert r.state("a") == "closed"
        await asyncio.sleep(2)
        assert (r.state("a"), r.providers["a"].checks) == ("open", 2)


class Replicas:
    """Processes with one provider, one store, and a check each minute."""

    def __init__(self, count: int = 3) -> None:
        self.store = MemoryStore(asyncio.get_running_loop().time)
        self.rigs = [rig([HELLO], check=HealthCheck(), rota=SharedRota(self.store)) for _ in range(count)]
        self.tasks: list[asyncio.Task[None]] = []
        for one in self.rigs:
            one.upstreams["a"].scope = ""
            one.providers["a"].check_answers = [True]

    async def __aenter__(self) -> Self:
        for one in self.rigs:
            self.tasks.append(asyncio.create_task(one.checks.run()))
            await asyncio.sleep(0.3)
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    @property
    def checks(self) -> int:
        return sum(one.providers["a"].checks for one in self.rigs)

    @property
    def healthy(self) -> list[bool | None]:
        return [one.upstreams["a"].healthy for one in self.rigs]


@virtual_time
async def test_of_several_replicas_one_checks_and_all_know() -> None:
    async with Replicas() as replicas:
        await asyncio.sleep(1)
        assert (replicas.checks, replicas.healthy) == (1, [True] * 3)
        await asyncio.sleep(600)
        assert 9 <= replicas.checks <= 12
        for one in replicas.rigs:
            one.providers["a"].check_answers = [False]
        await asyncio.sleep(67)
        assert replicas.healthy == [False] * 3
        async with asyncio.timeout(2):
            # The next check may just have been made: then the others hear of it in a moment.
            while len({one.upstreams["a"].last_check for one in replicas.rigs}) > 1:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)
        before = replicas.checks
        await asyncio.sleep(60)
        assert 5 <= replicas.checks - before <= 7, "six times as often, and still one at a time"


@virtual_time
async def test_when_whoever_checked_is_gone_another_makes_the_next_check() -> None:
    async with Replicas() as replicas:
        for _ in range(2):
            await asyncio.sleep(1)
            holder = max(range(len(replicas.rigs)), key=lambda i: replicas.rigs[i].providers["a"].checks)
            replicas.tasks.pop(holder).cancel()
            replicas.rigs.pop(holder)
            assert replicas.checks == 0
            await asyncio.sleep(67)
            assert replicas.checks == 1


@virtual_time
async def test_what_one_suspects_ends_no_rest_of_another() -> None:
    async with Replicas(2) as replicas:
        await asyncio.sleep(1)
        a, b = replicas.rigs
        for one in (a, b):
            one.targets["a"].cooldown.bench(Outcome.MODEL_MISSING)
        a.checks.soon(a.targets["a"], BreakerEffect.CHECK)
        await asyncio.sleep(2)
        assert replicas.checks == 2
        assert b.upstreams["a"].last_check == a.upstreams["a"].last_check
        assert all(one.targets["a"].cooldown.benched for one in (a, b))


@virtual_time
async def test_what_is_of_this_process_alone_each_checks_by_itself() -> None:
    async with Replicas() as replicas:
        for one in replicas.rigs:
            one.upstreams["a"].scope = None
        before = replicas.checks
        await asyncio.sleep(140)
        assert replicas.checks - before >= 6
