"""Homes are within one user of their shares, and go to the less loaded, then to the cheaper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.homes import Balance, Homes, HomesByLoad, HomesByPreference, HomesByShare
from router_server.core.plan import ordered
from router_server.core.strategies import LowestCost
from tests.core.asked import Asked, Busy, names, opened, those

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20).map(float), min_size=1)
LOADS = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 2)), min_size=1, max_size=80)
PRICES: Mapping[str, Callable[[int, int], int | None]] = {
    "a": lambda _in, _out: 3,
    "b": lambda _in, _out: 2,
    "c": lambda _in, _out: 1,
}


def balance(places: Mapping[str, Busy]) -> Balance:
    return Balance(places, LowestCost(PRICES, dict.fromkeys(PRICES)))


def home(homes: Homes, among: str = "abc", unwell: str = "") -> str:
    return homes.order(those(among, **{name: opened(name) for name in unwell}), Asked())[0].target


@settings(deadline=None)
@given(WEIGHTS, LOADS)
def test_whatever_the_load_is_everyone_is_within_one_user_of_its_share(
    weights: Mapping[str, float], loads: list[dict[str, float]]
) -> None:
    places = {name: Busy() for name in weights}
    homes = HomesByShare(weights, Balance(places, ordered))
    whole, given_to = sum(weights.values()), Counter[str]()
    for users, load in enumerate(loads, 1):
        for name, place in places.items():
            place.fullness = load.get(name, 0.0)
        given_to[home(homes, "".join(weights))] += 1
        for name, weight in weights.items():
            assert abs(given_to[name] - users * weight / whole) < 1 + 1e-6


def test_of_those_who_are_below_their_share_the_less_loaded_comes_first_then_the_cheaper() -> None:
    places = {name: Busy() for name in "ab"}
    homes = HomesByShare({"a": 1, "b": 1}, balance(places))
    assert [home(homes, "ab") for _ in range(4)] == ["b", "a", "b", "a"], "b is cheaper"
    places["b"].fullness = 0.5
    assert [home(homes, "ab") for _ in range(4)] == ["a", "b", "a", "b"]


def test_who_has_no_place_free_is_passed_over_and_gets_its_users_later() -> None:
    places = {name: Busy() for name in "ab"}
    homes = HomesByShare({"a": 1, "b": 1}, balance(places))
    places["a"].has_room = False
    assert {home(homes, "ab") for _ in range(4)} == {"b"}
    places["a"].has_room = True
    assert [home(homes, "ab") for _ in range(4)] == ["a"] * 4
    places["a"].has_room = places["b"].has_room = False
    assert {home(homes, "ab") for _ in range(2)} == {"a", "b"}


def test_shares_that_change_under_a_call_do_no_harm() -> None:
    homes = HomesByShare({"a": 1, "b": 1}, balance({name: Busy() for name in "ab"}))
    homes.change({"b": 1})
    assert home(homes, "a") == "a"
    assert home(homes, "ab") == "b"


def test_without_shares_the_least_loaded_is_home_then_the_cheapest() -> None:
    places = {name: Busy(fullness=0.1) for name in "abc"}
    homes = HomesByLoad(frozenset("abc"), balance(places))
    assert home(homes) == "c"
    places["c"].fullness = 0.2
    assert home(homes) == "b"
    assert home(homes, unwell="b") == "a"
    places["a"].has_room = False
    assert home(homes, unwell="b") == "c"


def test_what_is_preferred_is_home_unless_it_has_no_place_free() -> None:
    places = {name: Busy() for name in "abc"}
    homes = HomesByPreference(frozenset("abc"), ordered, balance(places))
    places["a"].fullness = 0.9
    assert home(homes) == "a", "order is order"
    places["a"].has_room = False
    assert home(homes) == "c"
    assert names(homes.order(those("abc"), Asked())) == "cba"
