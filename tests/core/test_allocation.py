"""Users keep what they were allotted, move when it fails, and return when it is well again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router_server.core.affinity import user_of
from router_server.core.allocation import (
    Allocation,
    Seat,
    parse_shares,
    unpack,
)
from router_server.core.homes import Balance, Homes, HomesByPreference, HomesByShare
from router_server.core.plan import Candidate, Plan, Strategy, ordered
from router_server.core.provider import Capability
from router_server.core.strategies import Balanced, Choice, LowestCost
from router_server.core.types import ChatRequest, Operation, Routing
from router_server.state.memory import MemoryStore
from tests.core.asked import CHAT, Asked, Busy, cooling, opened, planned, those

SHARES = {"a": 0.8, "b": 0.2}
IDLE = Balance({name: Busy() for name in "abc"}, ordered)


class Route:
    """One route with three targets, c being its fallback; unwell ones are named in ``unwell``."""

    def __init__(
        self,
        homes: Homes | None = None,
        *,
        shared: MemoryStore | None = None,
        stand_ins: Strategy = ordered,
        ttl: float = 3_600.0,
    ) -> None:
        self.now = 0.0
        self.unwell: Mapping[str, Candidate] = {}
        self.allocation = Allocation(
            user_of,
            homes or HomesByShare(SHARES, IDLE),
            stand_ins,
            clock=lambda: self.now,
            ttl=ttl,
            shared=shared,
        )

    async def plan(self, user: str = "u", **routing: object) -> Plan:
        request = ChatRequest("r", (), routing=Routing(**routing), user_id=user)  # type: ignore[arg-type]
        allotment = await self.allocation.recall(request)
        demand = Asked(Operation.CHAT, 10, request)
        plan = planned(those("abc", **self.unwell), demand, allotment or ordered)
        assert allotment is None or await self.allocation.keep(allotment)
        return plan

    async def asked(self, user: str = "u", **routing: object) -> str:
        return (await self.plan(user, **routing)).order[0].target


@pytest.fixture(params=["memory", "shared"])
def route(request: pytest.FixtureRequest) -> Route:
    return Route(shared=MemoryStore() if request.param == "shared" else None)


async def test_users_are_allotted_by_shares_and_keep_what_they_got(route: Route) -> None:
    first = {user: await route.asked(user) for user in map(str, range(100))}
    assert Counter(first.values()) == {"a": 80, "b": 20}
    assert {user: await route.asked(user) for user in first} == first


async def test_a_user_moves_when_home_fails_and_returns_when_it_is_well(route: Route) -> None:
    assert await route.asked() == "a"
    for unwell in (opened("a"), cooling("a")):
        route.unwell = {"a": unwell}
        plan = await route.plan()
        assert [c.target for c in plan.order] == ["b", "c"]
        assert plan.first == "b", "who was moved there is not asked elsewhere first"
        assert await route.asked() == "b"
        route.unwell = {}
        assert await route.asked() == "a"
        kept = await route.allocation.recall(ChatRequest("r", (), user_id="u"))
        assert kept is not None
        assert kept.known == Seat("a"), "the stand-in is dropped, not put aside for the next time"


async def test_a_stand_in_that_fails_gets_one_of_its_own(route: Route) -> None:
    assert await route.asked() == "a"
    route.unwell = {"a": opened("a")}
    assert await route.asked() == "b"
    route.unwell = {"a": opened("a"), "b": opened("b")}
    assert await route.asked() == "c"
    route.unwell = {"a": opened("a")}
    assert await route.asked() == "c", "whoever was moved stays until home is well"
    route.unwell = {}
    assert await route.asked() == "a"


async def test_users_that_come_while_home_is_down_go_there_when_it_is_up(route: Route) -> None:
    route.unwell = {"a": opened("a")}
    users = list(map(str, range(10)))
    assert {await route.asked(user) for user in users} == {"b"}
    route.unwell = {}
    assert Counter([await route.asked(user) for user in users]) == {"a": 8, "b": 2}


async def test_where_all_are_unwell_the_least_bad_is_tried(route: Route) -> None:
    assert await route.asked() == "a"
    soon = Candidate("b", CHAT, blocked=opened("b").blocked, ready_in=1.0)
    route.unwell = {"a": opened("a"), "b": soon, "c": opened("c")}
    assert (await route.plan()).last_resort
    route.unwell = {}
    assert await route.asked() == "a"


async def test_after_the_time_to_live_a_user_is_allotted_anew() -> None:
    route = Route(ttl=60.0)
    assert [await route.asked(user) for user in "uvw"] == ["a", "a", "b"]
    route.now = 59.0
    assert await route.asked("w") == "b"
    route.now = 61.0
    assert await route.asked("w") == "a"


async def test_a_call_of_nobody_takes_nobodys_turn(route: Route) -> None:
    for _ in range(7):
        assert await route.asked("") == "a"
    assert Counter([await route.asked(user) for user in "vwxyz"]) == {"a": 4, "b": 1}


async def test_a_call_that_home_cannot_take_says_nothing_of_where_the_user_belongs(route: Route) -> None:
    assert await route.asked() == "a"
    assert await route.asked(allowed_targets=("c",)) == "c"
    request = ChatRequest("r", (), user_id="u")
    allotment = await route.allocation.recall(request)
    able = Candidate("b", CHAT | {Capability.TOOLS})
    seen = [*those("a"), able, *those("c")]
    assert allotment is not None
    plan = planned(seen, Asked(request=request), allotment, CHAT | {Capability.TOOLS})
    assert plan.first == "b"
    assert await route.allocation.keep(allotment)
    assert await route.asked() == "a"


async def test_replicas_agree_and_shares_change_for_all_of_them_at_once() -> None:
    shared = MemoryStore()
    one, two = Route(shared=shared), Route(shared=shared)
    homes = {user: await one.asked(user) for user in map(str, range(20))}
    assert {user: await two.asked(user) for user in homes} == homes
    one.unwell = two.unwell = {"a": opened("a")}
    assert {await one.asked(user) for user in homes} == {"b"}
    one.unwell = two.unwell = {}
    assert {user: await one.asked(user) for user in homes} == homes
    await shared.put("shares", b'{"b": 1}', 60)
    assert {await replica.asked(user) for user in map(str, range(30)) for replica in (one, two)} == {"b"}
    await shared.drop("shares")
    new = [await two.asked(user) for user in map(str, range(100, 110))]
    assert Counter(new) == {"a": 8, "b": 2}


async def test_of_two_calls_at_once_the_quicker_one_decides() -> None:
    shared = MemoryStore()
    route, other = Route(shared=shared), Route(HomesByShare({"b": 1}, IDLE), shared=shared)
    request = ChatRequest("r", (), user_id="u")
    late = await route.allocation.recall(request)
    assert late is not None
    assert await other.asked() == "b"
    late(those("abc"), Asked(request=request))
    assert not await route.allocation.keep(late)
    assert await route.asked() == "b"


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_server.core.allocation._MOST", 10)
    route = Route()
    for user in range(30):
        await route.asked(str(user))
    assert len(route.allocation._memory) == 10


async def test_homes_may_be_whoever_is_written_first_or_cheapest() -> None:
    prices: Mapping[str, Callable[[int, int], int | None]] = {
        "a": lambda _in, _out: 2,
        "b": lambda _in, _out: 1,
        "c": lambda _in, _out: 3,
    }
    cheapest = LowestCost(prices, dict.fromkeys(prices))
    route = Route(HomesByPreference(frozenset("ab"), cheapest, IDLE))
    route.unwell = {"b": opened("b")}
    assert await route.asked() == "a"
    route.unwell = {}
    assert await route.asked() == "b", "the cheap one is well again"
    assert await Route(HomesByPreference(frozenset("ab"), ordered, IDLE)).asked() == "a"


async def test_a_stand_in_is_the_least_busy_then_the_cheapest() -> None:
    prices: Mapping[str, Callable[[int, int], int | None]] = {
        "a": lambda _in, _out: 0,
        "b": lambda _in, _out: 2,
        "c": lambda _in, _out: 1,
    }
    places = {name: Busy() for name in "abc"}
    balanced = Balanced(dict.fromkeys("abc", 1.0), places, LowestCost(prices, dict.fromkeys(prices)))
    route = Route(stand_ins=Choice(balanced, places))
    route.unwell = {"a": opened("a")}
    assert await route.asked("u") == "c"
    places["c"].load = 1
    assert await route.asked("v") == "b"
    assert await route.asked("u") == "c", "it keeps its own"


def test_what_is_kept_is_read_back_and_nonsense_is_nothing() -> None:
    for seat in (Seat("a"), Seat("a/b", "c")):
        assert unpack(seat.pack()) == seat
    assert [unpack(packed) for packed in (b"", b"a b c", b"\xff")] == [None, None, Seat("\ufffd")]
    assert parse_shares(b'{"a": 0.5, "b": 0, "c": "x", "d": true, "e": -1}') == {"a": 0.5, "d": 1.0}
    assert [parse_shares(packed) for packed in (b"", b"[1]", b"\xff")] == [{}, {}, {}]
    homes = HomesByShare(SHARES, IDLE)
    homes.change({"x": 1.0})
    assert homes.names == {"a", "b"}


class Moves(RuleBasedStateMachine):
    """Whoever is well or not, and in whatever order users call: home wins, a stand-in stays."""

    def __init__(self) -> None:
        super().__init__()
        self.route = Route()
        self.home: dict[str, str] = {}
        self.stand_in: dict[str, str] = {}

    @rule(unwell=st.sets(st.sampled_from("abc")))
    def health(self, unwell: set[str]) -> None:
        self.route.unwell = {name: opened(name) for name in unwell}

    @rule(user=st.sampled_from("uvwxyz"))
    def call(self, user: str) -> None:
        step = self.route.plan(user)
        try:
            while True:
                step.send(None)
        except StopIteration as done:
            plan: Plan = done.value
        unwell = self.route.unwell.keys()
        asked = plan.order[0].target
        if len(unwell) == 3:
            return
        assert asked not in unwell
        home = self.home.get(user)
        if home is None and asked in "ab":
            self.home[user] = asked if not unwell else ""
        if home:
            assert asked == home or home in unwell
            if home in unwell and self.stand_in.get(user, asked) not in unwell:
                assert asked == self.stand_in.setdefault(user, asked)
            elif home in unwell:
                self.stand_in[user] = asked
            else:
                self.stand_in.pop(user, None)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        assert len(self.route.allocation._memory) <= 6


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
