"""Routers that share a shelf ask once for an answer under an idempotency key; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from router_server.core.caching import CachingRouter
from router_server.core.claim import CLAIM_TTL, Claims, Taken
from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.results import ChatResult, StreamEvent
from router_server.core.router import RouterSettings
from router_server.core.shared import UnreachableError
from router_server.core.types import Delta, Usage
from router_server.state.claims import SharedClaims
from router_server.state.memory import MemoryStore
from tests.clock import virtual_time
from tests.core.scripted import Rig, ask, collect, fails, invocation, rig, said
from tests.core.scripted import done as ended

SLOWLY = [3.0, said("Hello"), ended(Usage(3, 2))]
LOOK = 0.1


class Shelf(MemoryStore):
    """Counts the answers that it is given to keep."""

    kept = 0

    async def put(self, key: str, value: bytes, ttl: float, *, only_if_absent: bool = False) -> bool:
        self.kept += 1
        return await super().put(key, value, ttl, only_if_absent=only_if_absent)


class Replicas:
    """Routers with one provider each, and one shelf for all."""

    def __init__(
        self, *scripts: Sequence[Any], claims: Claims | None = None, kind: type[SharedClaims] = SharedClaims
    ) -> None:
        clock = asyncio.get_running_loop().time
        self.store = Shelf(clock)
        self.claims = claims or kind(self.store)
        self.rigs: list[Rig] = [rig([script]) for script in scripts]
        self.routers = [
            CachingRouter(
                one.router,
                one.router,
                {},
                idempotency_ttl=600.0,
                shelf=self.store,
                name_key=lambda what, digest: f"{what}:{digest}",
                observer=one.recorder,
                clock=clock,
                settings=RouterSettings(),
                claims=self.claims,
            )
            for one in self.rigs
        ]

    def chat(self, replica: int, text: str = "Hi", seconds: float = 60.0) -> asyncio.Task[ChatResult]:
        request = ask(text, idempotency_key="k")
        return asyncio.create_task(self.routers[replica].chat(request, invocation(seconds)))

    def stream(self, replica: int) -> asyncio.Task[list[StreamEvent]]:
        events = self.routers[replica].stream(ask(idempotency_key="k"), invocation(60.0))
        return asyncio.create_task(collect(events))

    @property
    def asked(self) -> list[int]:
        """How many questions each provider has got."""
        return [len(one.providers["a"].calls) for one in self.rigs]

    def told(self, replica: int) -> list[tuple[str | None, Reason | None, bool]]:
        return [(one.reused, one.error, one.cancelled) for one in self.rigs[replica].recorder.calls]


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@virtual_time
async def test_others_wait_and_get_the_answer_again() -> None:
    some = Replicas(SLOWLY, SLOWLY, SLOWLY)
    calls = []
    for replica in (0, 1, 2, 2):
        calls.append(some.chat(replica))
        await asyncio.sleep(0.01)
    answers = await asyncio.gather(*calls)
    assert asyncio.get_running_loop().time() == pytest.approx(3.0 + LOOK, abs=LOOK)
    assert [one.trail.cache_hit for one in answers] == [False, True, True, True]
    assert len({one.answer.message for one in answers}) == 1
    assert some.asked == [1, 0, 0]
    assert some.told(0) == [(None, None, False)]
    assert some.told(1) == [("replay", None, False)]
    assert sorted(some.told(2)) == [("joined", None, False), ("replay", None, False)]
    await asyncio.sleep(0.1)
    assert (len(some.store), some.store.kept) == (1, 1), "the answer alone, once: the claim is over"


@virtual_time
async def test_a_stream_waits_too() -> None:
    some = Replicas(SLOWLY, SLOWLY)
    first, second = await asyncio.gather(some.stream(0), some.stream(1))
    assert [type(event) for event in first] == [type(event) for event in second]
    assert text_of(second) == "Hello"
    assert some.asked == [1, 0]


@virtual_time
async def test_another_question_is_refused_at_once_and_ends_nothing() -> None:
    some = Replicas(SLOWLY, SLOWLY)
    first = some.chat(0)
    await asyncio.sleep(0.5)
    with pytest.raises(RouterError, match="Another request has this idempotency_key") as refused:
        await some.chat(1, "Something else")
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert asyncio.get_running_loop().time() == 0.5
    again = some.chat(1)
    assert not (await first).trail.cache_hit
    assert (await again).trail.cache_hit
    assert some.asked == [1, 0]


@virtual_time
async def test_after_a_failure_one_of_those_who_wait_asks() -> None:
    some = Replicas([1.0, fails(Outcome.INVALID_REQUEST)], SLOWLY, SLOWLY)
    calls = [some.chat(0)]
    await asyncio.sleep(0.05)
    calls += [some.chat(1), some.chat(2)]
    first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, RouterError)
    assert sorted(one.trail.cache_hit for one in others) == [False, True]  # type: ignore[union-attr]
    assert sorted(some.asked) == [0, 1, 1]


@virtual_time
async def test_an_answer_that_is_too_large_is_not_waited_for_any_more() -> None:
    large = [1.0, *[said("x" * 1024)] * 1100, 10.0, ended(Usage(3, 2))]
    some = Replicas(large, SLOWLY)
    first = some.stream(0)
    await asyncio.sleep(0.05)
    began = asyncio.get_running_loop().time()
    assert text_of(await some.stream(1)) == "Hello"
    assert asyncio.get_running_loop().time() - began < 1.0 + 3.0 + 2 * LOOK, "while the first one goes on"
    assert len(text_of(await first)) == 1100 * 1024
    assert some.asked == [1, 1]


@virtual_time
async def test_a_claim_lasts_as_long_as_its_call() -> None:
    some = Replicas([100.0, said("Hello"), ended(Usage(3, 2))], SLOWLY)
    first = some.chat(0, seconds=200.0)
    await asyncio.sleep(50.0)
    with pytest.raises(RouterError, match="Another request"):
        await some.chat(1, "Something else")
    first.cancel()
    began = asyncio.get_running_loop().time()
    assert not (await some.chat(1)).trail.cache_hit
    assert asyncio.get_running_loop().time() - began < 3.0 + 2 * LOOK, "it was free at once"


class Slow(SharedClaims):
    """Takes a while to say anything."""

    async def take(self, key: str, question: str, owner: str, ttl: float) -> Taken | None:
        await asyncio.sleep(0.01)
        return await super().take(key, question, owner, ttl)


@virtual_time
async def test_who_repeats_is_not_refused_for_another_question_that_is() -> None:
    some = Replicas(SLOWLY, SLOWLY, kind=Slow)
    first = some.chat(0)
    await asyncio.sleep(0.5)
    other, again = some.chat(1, "Something else"), some.chat(1)
    with pytest.raises(RouterError, match="Another request"):
        await other
    assert not (await first).trail.cache_hit
    assert (await again).trail.cache_hit
    assert some.asked == [1, 0]


class Noted(SharedClaims):
    """Knows key and question of what was claimed last."""

    wish = "", ""

    async def take(self, key: str, question: str, owner: str, ttl: float) -> Taken | None:
        self.wish = key, question
        return await super().take(key, question, owner, ttl)


@virtual_time
async def test_the_claim_of_a_process_that_died_ends_by_itself() -> None:
    some = Replicas(SLOWLY)
    noted = Noted(some.store)
    await Replicas(SLOWLY, claims=noted).chat(0)
    await asyncio.sleep(0.1)
    await some.claims.take(*noted.wish, "dead", CLAIM_TTL)
    began = asyncio.get_running_loop().time()
    assert not (await some.chat(0)).trail.cache_hit
    took = asyncio.get_running_loop().time() - began
    assert took == pytest.approx(CLAIM_TTL + 3.0, abs=2 * LOOK)


@virtual_time
async def test_who_waits_has_a_deadline_and_may_leave() -> None:
    some = Replicas([30.0, said("Hello"), ended(Usage(3, 2))], SLOWLY)
    first = some.chat(0)
    await asyncio.sleep(1.0)
    with pytest.raises(RouterError) as late:
        await some.chat(1, seconds=2.0)
    assert late.value.reason is Reason.DEADLINE_EXCEEDED
    assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=LOOK)
    leaving = some.chat(1)
    await asyncio.sleep(1.0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert some.told(1) == [("replay", Reason.DEADLINE_EXCEEDED, False), ("replay", None, True)]
    assert not (await first).trail.cache_hit
    assert some.asked == [1, 0]


class Gone:
    """Claims that nobody can make."""

    async def take(self, *_: object) -> Taken | None:
        raise UnreachableError

    async def release(self, *_: object) -> None:
        raise UnreachableError


@virtual_time
async def test_where_nobody_can_be_asked_each_goes_on_alone() -> None:
    some = Replicas(SLOWLY, SLOWLY, claims=Gone())
    await asyncio.gather(some.chat(0), some.chat(1))
    assert asyncio.get_running_loop().time() == 3.0
    assert some.asked == [1, 1]
