"""Outages are told once: when they last, and by one replica."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.alerts import Alerts
from router_server.core.outages import Outages, Turn
from router_server.core.shared import UnreachableError
from router_server.state.memory import MemoryStore


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_counts_once_it_has_lasted_and_so_does_its_end() -> None:
    clock = Clock()
    outages = Outages(30.0, clock)
    turns = []
    for clock.now, serving in enumerate([True] * 10 + [False] * 50 + [True] * 50):
        turns.append((clock.now, outages.seen("t", serving=serving)))
    assert [(at, turn) for at, turn in turns if turn] == [(40, Turn.DOWN), (90, Turn.BACK)]


def test_a_hiccup_is_no_outage_and_a_probe_is_no_recovery() -> None:
    clock = Clock()
    outages = Outages(30.0, clock)
    for clock.now in range(200):
        assert outages.seen("flapping", serving=clock.now % 20 < 10) is None
    told = []
    for clock.now in range(200, 300):
        told.append(
            outages.seen("probed", serving=None if clock.now % 10 == 0 and clock.now > 200 else False)
        )
    assert [turn for turn in told if turn] == [Turn.DOWN]


@settings(deadline=None)
@given(st.lists(st.sampled_from([True, False, None]), max_size=60), st.integers(0, 5))
def test_turns_alternate_and_begin_with_an_outage(seen: list[bool | None], patience: int) -> None:
    clock = Clock()
    outages = Outages(patience, clock)
    told = []
    for serving in seen:
        clock.now += 1
        told.append(outages.seen("t", serving=serving))
    turns = [turn for turn in told if turn]
    assert turns[::2] == [Turn.DOWN] * len(turns[::2])
    assert turns[1::2] == [Turn.BACK] * len(turns[1::2])


class Gone(MemoryStore):
    """Shared values that are gone."""

    async def put(self, *_: object, **__: object) -> bool:
        raise UnreachableError

    async def drop(self, *_: object) -> int:
        raise UnreachableError


async def test_an_outage_that_nobody_sees_any_more_is_told_again_when_it_comes_again() -> None:
    clock = Clock()
    values = MemoryStore(clock)
    (one, told), (two, also) = alerts(values), alerts(values)
    await one.raised("t", "down")
    for clock.now in range(200, 2_000, 200):
        await two.upheld("t")
        await two.raised("t", "down")
    assert (told, also) == (["down"], []), "one has gone, and two has seen it all the time"
    clock.now += 301
    await two.upheld("t")
    await two.raised("t", "down")
    assert also == ["down"]
    await two.cleared("t", "back")
    await two.upheld("t")
    await two.raised("t", "down")
    assert also == ["down", "back", "down"]


def alerts(values: MemoryStore) -> tuple[Alerts, list[str]]:
    told: list[str] = []

    async def tell(text: str) -> None:
        told.append(text)

    return Alerts(values, str, tell), told


async def test_of_several_replicas_one_tells() -> None:
    values = MemoryStore()
    (one, first), (two, second) = alerts(values), alerts(values)
    await one.raised("t", "down")
    await two.raised("t", "down too")
    await two.cleared("t", "back")
    await one.cleared("t", "back too")
    assert (first, second) == (["down"], ["back"])
    await two.raised("t", "down again")
    assert second == ["back", "down again"]


async def test_while_nothing_is_shared_each_tells_for_itself() -> None:
    one, told = alerts(Gone())
    await one.raised("t", "down")
    await one.cleared("t", "back")
    assert told == ["down", "back"]


async def test_what_is_raised_ends_by_itself() -> None:
    clock = Clock()
    one, told = alerts(MemoryStore(clock))
    await one.raised("budget/80", "80 % of the budget", life=60.0)
    clock.now = 59.0
    await one.raised("budget/80", "80 % of the budget", life=60.0)
    assert len(told) == 1
    clock.now = 61.0
    await one.raised("budget/80", "80 % of the budget", life=60.0)
    assert len(told) == 2
