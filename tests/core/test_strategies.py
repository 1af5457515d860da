"""Strategies: whom each picks, whom all pass over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.errors import Outcome
from router_server.core.observer import AttemptRecord, AttemptStart
from router_server.core.plan import Candidate, Demand
from router_server.core.speeds import SpeedBoard
from router_server.core.strategies import (
    EXPLORED,
    AtRandom,
    Choice,
    InTurn,
    LeastInflight,
    LowestCost,
    LowestLatency,
    Rank,
)
from router_server.core.types import ChatRequest, EmbedRequest, Generation, Operation, Routing
from tests.core.asked import CHAT, Asked, Busy, cooling, names, opened, planned, those

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9).map(float), min_size=1, max_size=4)


def seeded(seed: int) -> Callable[[], float]:
    return random.Random(seed).random  # noqa: S311 - the same every time is what it is for


def picks(rank: Rank, candidates: Sequence[Candidate], count: int, demand: Demand | None = None) -> str:
    return "".join(rank(candidates, demand or Asked())[0].target for _ in range(count))


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 100))
def test_in_any_window_of_all_weights_each_is_picked_as_often_as_it_weighs(
    weights: Mapping[str, float], start: int
) -> None:
    period = int(sum(weights.values()))
    picked = picks(InTurn(weights), those("".join(weights)), start + period)
    assert Counter(picked[start:]) == weights


@settings(deadline=None)
@given(WEIGHTS)
def test_at_no_moment_is_anyone_a_whole_round_away_from_its_share(weights: Mapping[str, float]) -> None:
    total = sum(weights.values())
    picked = picks(InTurn(weights), those("".join(weights)), 2 * int(total))
    for length in range(1, len(picked) + 1):
        for name, weight in weights.items():
            assert abs(picked[:length].count(name) - length * weight / total) < len(weights)


def test_turns_are_as_smooth_as_those_of_nginx() -> None:
    assert picks(InTurn({"a": 5, "b": 1, "c": 1}), those("abc"), 7) == "aabacaa"


@settings(deadline=None)
@given(WEIGHTS, st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), max_size=60))
def test_who_comes_and_goes_never_upsets_the_turns_of_the_others(
    weights: Mapping[str, float], seen: Sequence[set[str]]
) -> None:
    rank = InTurn(weights)
    for present in seen:
        here = those("".join(sorted(present & weights.keys())))
        if here:
            order = rank(here, Asked())
            assert sorted(names(order)) == sorted(names(here))
    period = int(sum(weights.values()))
    settled = picks(rank, those("".join(weights)), 10 * period)[-period:]
    assert Counter(settled) == weights


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 5), st.integers(0, 20)), min_size=1))
def test_the_least_burdened_is_picked(loads: Mapping[str, tuple[int, int]]) -> None:
    weights = {name: float(weight) for name, (weight, _load) in loads.items()}
    rank = LeastInflight(weights, {name: Busy(load=load) for name, (_weight, load) in loads.items()})
    picked = picks(rank, those("".join(loads)), 1)
    burdens = {name: (load + 1) / weight for name, (weight, load) in loads.items()}
    assert burdens[picked] == min(burdens.values())


def test_idle_equals_take_turns() -> None:
    rank = LeastInflight({"a": 1, "b": 1, "c": 1}, {"a": Busy(), "b": Busy(), "c": Busy(load=1)})
    assert picks(rank, those("abc"), 4) == "abab"


def test_chance_is_as_the_weights_say() -> None:
    rank = AtRandom({"a": 4, "b": 1}, seeded(7))
    counted = Counter(picks(rank, those("ab"), 10_000))
    assert counted["a"] == pytest.approx(8_000, abs=150)


@settings(deadline=None)
@given(st.integers(0, 2**32), WEIGHTS)
def test_chance_leaves_nobody_out(seed: int, weights: Mapping[str, float]) -> None:
    order = AtRandom(weights, seeded(seed))(those("".join(weights)), Asked())
    assert sorted(names(order)) == sorted(weights)


class Times:
    """A clock and a board of speeds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.board = SpeedBoard(lambda: self.now)

    def measure(self, **seconds: float) -> None:
        for name, took in seconds.items():
            self.now += 1
            self.board.measured(name, Operation.CHAT, took)


def test_the_quickest_is_picked_and_strangers_are_last() -> None:
    times = Times()
    times.measure(a=0.5, b=0.2)
    rank = LowestLatency("abc", times.board, lambda: 0.9)
    assert names(rank(those("abc"), Asked())) == "bac"
    assert names(rank(those("abc"), Asked(Operation.STREAM))) == "abc", "of streams nothing is known"


def test_while_nothing_is_known_it_is_by_turns() -> None:
    assert picks(LowestLatency("abc", Times().board, lambda: 0.0), those("abc"), 4) == "abca"


def test_exploring_asks_whom_nobody_measured_then_whom_nobody_measured_lately() -> None:
    times = Times()
    times.measure(a=0.1, b=0.2)
    rank = LowestLatency("abc", times.board, lambda: EXPLORED / 2)
    assert names(rank(those("abc"), Asked())) == "cab"
    times.measure(c=0.3)
    assert names(rank(those("abc"), Asked())) == "bac"
    assert names(rank(those("a"), Asked())) == "a", "who is alone is not explored"


def test_one_call_in_twenty_explores() -> None:
    times = Times()
    times.measure(a=0.1, b=0.2)
    rank = LowestLatency("ab", times.board, seeded(3))
    assert picks(rank, those("ab"), 10_000).count("b") == pytest.approx(500, abs=70)


def test_a_target_that_becomes_quick_is_found_and_then_preferred() -> None:
    times = Times()
    times.measure(a=0.5, b=5.0)
    rank = LowestLatency("ab", times.board, seeded(1))
    real = {"a": 0.5, "b": 0.1}
    picked = []
    for _ in range(1_000):
        picked.append(picks(rank, those("ab"), 1))
        times.measure(**{picked[-1]: real[picked[-1]]})
    assert "".join(picked[-100:]).count("b") > 85


def test_an_average_follows_what_is_new() -> None:
    times = Times()
    times.measure(a=1.0)
    times.measure(a=2.0)
    assert times.board.expected("a", Operation.CHAT) == pytest.approx(1.2)
    for _ in range(30):
        times.measure(a=2.0)
    assert times.board.expected("a", Operation.CHAT) == pytest.approx(2.0, rel=0.01)


def test_attempts_that_answered_or_ran_out_of_time_are_measured_and_no_others() -> None:
    board = Times().board
    for target, outcome, first in (
        ("streamed", Outcome.OK, 0.25),
        ("whole", Outcome.OK, None),
        ("late", Outcome.TIMEOUT, None),
        ("down", Outcome.UNAVAILABLE, None),
        ("lost", Outcome.CANCELLED, 0.5),
    ):
        start = AttemptStart("c", Operation.CHAT, "r", target, "p", "scripted", "m", 1)
        board.ended(AttemptRecord(start, outcome, 5.0, queue_wait=2.0, time_to_first_token=first))
    expected = {
        name: board.expected(name, Operation.CHAT) for name in ("streamed", "whole", "late", "down", "lost")
    }
    assert expected == {"streamed": 0.25, "whole": 3.0, "late": 3.0, "down": None, "lost": None}


def test_the_cheapest_depends_on_the_call() -> None:
    prices = {
        "flat": lambda _prompt, _output: 2_000,
        "input": lambda prompt, _output: 10 * prompt,
        "output": lambda _prompt, output: 10 * output,
        "unknown": lambda _prompt, _output: None,
    }
    rank = LowestCost(prices, dict.fromkeys(prices))
    all_of_them = [Candidate(name, CHAT) for name in ("unknown", "flat", "input", "output")]

    def order(demand: Asked) -> list[str]:
        return [c.target for c in rank(all_of_them, demand)]

    long_answer = ChatRequest("r", (), Generation(max_output_tokens=10_000))
    assert order(Asked(prompt_tokens=1, request=long_answer)) == ["input", "flat", "output", "unknown"]
    short_answer = ChatRequest("r", (), Generation(max_output_tokens=5))
    assert order(Asked(prompt_tokens=1_000, request=short_answer)) == ["output", "flat", "input", "unknown"]
    embedding = EmbedRequest("r", ("x",))
    assert order(Asked(Operation.EMBED, 1, embedding)) == ["output", "input", "flat", "unknown"]


def test_a_targets_own_cap_is_in_the_estimate() -> None:
    prices = {"a": lambda _prompt, output: 3 * output, "b": lambda _prompt, output: 2 * output}
    rank = LowestCost(prices, {"a": 10, "b": None})
    assert names(rank(those("ab"), Asked())) == "ab"


def turns(occupancy: Mapping[str, Busy] | None = None, fallback: str = "") -> Choice:
    rank = InTurn(dict.fromkeys("abcdef", 1.0))
    return Choice(rank, occupancy or {name: Busy() for name in "abcdef"}, frozenset(fallback))


def test_who_is_unwell_is_passed_over_and_comes_after_the_others() -> None:
    choice = turns(fallback="f")
    seen = those("abcf", a=cooling("a"), b=opened("b"))
    assert [names(choice(seen, Asked())) for _ in range(2)] == ["cabf", "cabf"]
    plan = planned(seen, Asked(), choice)
    assert (plan.first, names(plan.order), [s.target for s in plan.skipped]) == ("c", "cf", ["a", "b"])


def test_who_has_no_place_free_is_passed_over_while_another_has() -> None:
    places = {"a": Busy(has_room=False), "b": Busy(), "c": Busy(has_room=False, is_full=True)}
    choice = turns(places)
    assert [names(choice(those("abc"), Asked())) for _ in range(2)] == ["bac", "bac"]
    places["b"].has_room = False
    assert {names(choice(those("abc"), Asked()))[0] for _ in range(4)} == {"a", "b"}, "c is full"
    places["a"].is_full = places["b"].is_full = True
    assert {names(choice(those("abc"), Asked()))[0] for _ in range(6)} == {"a", "b", "c"}


def test_where_all_are_unwell_the_least_bad_is_tried_once() -> None:
    soon = Candidate("b", CHAT, blocked=Outcome.CIRCUIT_OPEN, ready_in=1.0)
    plan = planned(those("abc", a=opened("a"), b=soon, c=cooling("c")), Asked(), turns())
    assert (names(plan.order), plan.last_resort) == ("b", True)
    plan = planned(those("ac", a=cooling("a"), c=cooling("c")), Asked(), turns())
    assert plan.order == ()


def test_fallback_is_asked_in_its_order_after_all_others() -> None:
    choice = turns(fallback="ef")
    assert [names(choice(those("abef"), Asked())) for _ in range(2)] == ["abef", "baef"]
    plan = planned(those("abef", a=opened("a"), b=opened("b")), Asked(), choice)
    assert (plan.first, names(plan.order)) == ("a", "ef"), "an answer of e is a fallback"


def routed(**routing: object) -> Asked:
    return Asked(request=ChatRequest("r", (), routing=Routing(**routing)))  # type: ignore[arg-type]


def test_who_names_targets_gets_them_in_that_order_and_takes_nobodys_turn() -> None:
    choice = turns()
    named = routed(allowed_targets=("b", "a"))
    assert [names(planned(those("abc"), named, choice).order) for _ in range(3)] == ["ba"] * 3
    assert planned(those("abc"), Asked(), choice).first == "a"


def test_without_failover_the_pick_is_alone() -> None:
    choice = turns()
    alone = routed(allow_failover=False)
    seen = those("abc", b=opened("b"))
    assert [names(planned(seen, alone, choice).order) for _ in range(3)] == ["a", "c", "a"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 3.0]), st.sampled_from([None, Outcome.CIRCUIT_OPEN]), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 2**16),
)
def test_no_choice_loses_or_doubles_anyone_and_the_well_come_first(
    states: Sequence[tuple[float, Outcome | None, bool]], seed: int
) -> None:
    seen = [
        Candidate("abcdef"[i], CHAT, cooling=rest, blocked=blocked)
        for i, (rest, blocked, _room) in enumerate(states)
    ]
    places = {"abcdef"[i]: Busy(has_room=room) for i, (_rest, _blocked, room) in enumerate(states)}
    choice = Choice(AtRandom(dict.fromkeys("abcdef", 1.0), seeded(seed)), places)
    order = choice(seen, Asked())
    assert sorted(names(order)) == sorted(names(seen))
    if any(c.well for c in seen):
        assert order[0].well
        assert places[order[0].target].has_room or not any(places[c.target].has_room for c in seen if c.well)
