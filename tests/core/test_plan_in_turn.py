"""Targets in the order of the configuration are looked at when it is their turn, and no sooner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.hedge import Hedging
from router_server.core.plan import Candidate, Demand, make_plan, next_well
from router_server.core.provider import Capability
from router_server.core.target import TargetSettings
from router_server.core.types import ChatRequest, EmbedRequest, Operation, Routing, Usage
from tests.clock import virtual_time
from tests.core.asked import CHAT, Asked, Seen, names, opened, planned, those
from tests.core.scripted import ALL, Act, Rig, ask, done, fails, invocation, rig, said

HELLO: Sequence[Act] = [said("hello"), done(Usage(3, 2))]


class Looks:
    """Targets that tell who was looked at."""

    def __init__(self, views: Sequence[Candidate]) -> None:
        self.at = ""
        self.targets = [Looked(view, self) for view in views]


@dataclass
class Looked(Seen):
    looks: Looks

    def candidate(self, demand: Demand) -> Candidate:
        self.looks.at += self.configured
        return super().candidate(demand)


def test_a_plan_looks_no_further_than_to_the_first_who_is_well() -> None:
    looks = Looks(those("abcdef", a=opened("a"), d=opened("d")))
    plan = make_plan(looks.targets, CHAT, Asked())
    assert (plan.first, names(plan.order), [s.target for s in plan.skipped]) == ("a", "b", ["a"])
    assert looks.at == "ab"
    well, passed_over = next_well(plan.rest)
    assert (names(well), names(passed_over), looks.at) == ("c", "", "abc")
    well, passed_over = next_well(plan.rest)
    assert (names(well), names(passed_over), looks.at) == ("e", "d", "abcde")


def test_where_nobody_is_well_everybody_is_looked_at() -> None:
    looks = Looks(those("abc", a=opened("a"), b=opened("b"), c=opened("c")))
    plan = make_plan(looks.targets, CHAT, Asked())
    assert (looks.at, plan.last_resort, names(plan.order)) == ("abc", True, "a")
    assert next_well(plan.rest) == ((), [])


@pytest.mark.parametrize(("views", "routing"), [("a", Routing()), ("ab", Routing(allow_failover=False))])
def test_who_is_alone_has_nobody_behind_him(views: str, routing: Routing) -> None:
    looks = Looks(those(views))
    plan = make_plan(looks.targets, CHAT, Asked(request=ChatRequest("r", (), routing=routing)))
    assert (names(plan.order), [*plan.rest], looks.at) == ("a", [], "a")


def test_vectors_of_another_space_are_never_next() -> None:
    embeds = frozenset({Capability.EMBED})
    views = [Candidate(name, embeds, space=space) for name, space in ("ax", "by", "cx")]
    asked = Asked(Operation.EMBED, request=EmbedRequest("r", ("text",)))
    plan = planned(views, asked, needs=embeds)
    assert names(plan.order) == "a"
    assert [c.target for c in plan.rest] == ["c"]


def down() -> Sequence[Act]:
    return [fails(Outcome.MALFORMED)]


def trail(found: Sequence[object]) -> list[tuple[object, object]]:
    return [(getattr(a, "target", None), getattr(a, "outcome", None)) for a in found]


def unwell(r: Rig, name: str) -> None:
    r.targets[name].breaker.trip()


@virtual_time
async def test_who_is_found_unwell_on_the_way_stands_in_the_trail_where_it_was_passed_over() -> None:
    r = rig([down()], [HELLO], [HELLO], [HELLO])
    unwell(r, "b")
    unwell(r, "d")
    result = await r.router.chat(ask(), invocation())
    assert trail(result.trail.attempts) == [
        ("a", Outcome.MALFORMED),
        ("b", Outcome.CIRCUIT_OPEN),
        ("c", Outcome.OK),
    ]
    assert result.trail.fallback
    assert r.idle


@virtual_time
async def test_who_is_passed_over_at_the_end_is_told_with_the_error() -> None:
    r = rig([down()], [HELLO])
    unwell(r, "b")
    with pytest.raises(RouterError) as caught:
        await r.router.chat(ask(), invocation())
    assert caught.value.reason is Reason.ALL_TARGETS_FAILED
    assert trail(caught.value.attempts) == [("a", Outcome.MALFORMED), ("b", Outcome.CIRCUIT_OPEN)]


@virtual_time
async def test_a_prompt_that_was_too_long_goes_to_no_smaller_window_however_far_behind() -> None:
    windows = {
        n: TargetSettings(n, n, ALL, context_window=w) for n, w in zip("abcd", (8, 9, 4, 16), strict=True)
    }
    long = [fails(Outcome.CONTEXT_LENGTH)]
    r = rig([long], [long], [HELLO], [HELLO], overrides=windows)
    result = await r.router.chat(ask(), invocation())
    assert trail(result.trail.attempts)[-1] == ("d", Outcome.OK)
    assert not r.providers["c"].calls


@virtual_time
async def test_a_hedge_goes_as_far_as_to_whoever_is_free() -> None:
    r = rig([[30.0, *HELLO]], [HELLO], [HELLO], hedging=Hedging(after=1.0, max_extra=1.0))
    r.targets["b"].gate.capacity = 0
    result = await r.router.chat(ask(), invocation())
    assert result.trail.target == "c"
