"""The same key goes to the same place, and moves only when it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.affinity import Affinity, by_rendezvous, label_of, user_of
from router_server.core.plan import Candidate
from router_server.core.provider import Capability
from router_server.core.types import ChatRequest, Operation
from tests.core.asked import CHAT, Asked, cooling, names, planned, those

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 10), min_size=2)


@settings(deadline=None)
@given(st.text(), WEIGHTS)
def test_who_goes_moves_only_what_it_had_and_who_comes_only_what_it_wins(
    key: str, weights: Mapping[str, float]
) -> None:
    order = by_rendezvous(key, weights)
    assert sorted(order) == sorted(weights)
    for gone in weights:
        rest = {name: weight for name, weight in weights.items() if name != gone}
        assert by_rendezvous(key, rest) == [name for name in order if name != gone]


def test_keys_are_spread_as_the_weights_say_and_a_newcomer_takes_its_share_alone() -> None:
    keys = [f"session-{i}" for i in range(4_000)]
    before = {key: by_rendezvous(key, {"a": 3, "b": 1})[0] for key in keys}
    assert Counter(before.values())["a"] == pytest.approx(3_000, abs=120)
    after = {key: by_rendezvous(key, {"a": 3, "b": 1, "c": 1})[0] for key in keys}
    moved = {key for key in keys if before[key] != after[key]}
    assert {after[key] for key in moved} == {"c"}
    assert len(moved) == pytest.approx(800, abs=120)


def of(user: str = "", **labels: str) -> Asked:
    return Asked(Operation.CHAT, 10, ChatRequest("r", (), user_id=user, labels=labels))


def test_a_calls_key_decides_and_fallback_stays_last() -> None:
    affinity = Affinity(user_of, dict.fromkeys("abc", 1.0), lambda candidates, _demand: candidates[::-1])
    orders = {user: names(affinity(those("abcf"), of(user))) for user in map(str, range(50))}
    assert {order[0] for order in orders.values()} == set("abc")
    assert {order[3] for order in orders.values()} == {"f"}
    assert all(names(affinity(those("abcf"), of(user))) == order for user, order in orders.items())
    assert names(affinity(those("abcf"), of())) == "fcba", "without a key another strategy decides"


def test_a_label_may_be_the_key() -> None:
    affinity = Affinity(
        label_of("session"), dict.fromkeys("abc", 1.0), lambda candidates, _demand: candidates
    )
    first = names(affinity(those("abc"), of("u", session="s1")))
    assert first == names(affinity(those("abc"), of("v", session="s1")))
    assert names(affinity(those("abc"), of("u", other="s1"))) == "abc"


def test_while_its_place_is_unwell_a_key_has_the_next_one_and_then_its_own_again() -> None:
    affinity = Affinity(user_of, dict.fromkeys("abc", 1.0), lambda candidates, _demand: candidates)
    usual = names(planned(those("abc"), of("u"), affinity).order)
    unwell = {usual[0]: cooling(usual[0])}
    plan = planned(those("abc", **unwell), of("u"), affinity)
    assert (plan.first, names(plan.order)) == (usual[0], usual[1:])


def test_capabilities_are_asked_first() -> None:
    affinity = Affinity(user_of, {"a": 1.0, "b": 1.0}, lambda candidates, _demand: candidates)
    able = Candidate("b", frozenset({Capability.CHAT, Capability.TOOLS}))
    plan = planned([*those("a"), able], of("u"), affinity, CHAT | {Capability.TOOLS})
    assert names(plan.order) == "b"
