"""Arms of an experiment: how many, who, and whom each asks."""

from __future__ import annotations

import random

import pytest

from router_server.core.affinity import user_of
from router_server.core.experiment import CONTROL, Experiment
from router_server.core.plan import ordered
from router_server.core.types import ChatRequest, Routing
from tests.core.asked import Asked, names, opened, planned, those


def of(user: str = "", **routing: object) -> ChatRequest:
    return ChatRequest("r", (), routing=Routing(**routing), user_id=user)  # type: ignore[arg-type]


def order(arm: str, candidates: str = "abn", **unwell: object) -> str:
    experiment = Experiment("new", "n", 0.5, lambda: 0.0)
    seen = those(candidates, **unwell)  # type: ignore[arg-type]
    return names(planned(seen, Asked(), experiment.strategy(arm, ordered)).order)


def test_chance_gives_its_share_to_the_new_arm() -> None:
    chance = random.Random(5).random  # noqa: S311 - the same every time is what it is for
    experiment = Experiment("new", "n", 0.1, chance)
    arms = [experiment.arm(of()) for _ in range(10_000)]
    assert arms.count("new") == pytest.approx(1_000, abs=100)
    assert set(arms) == {"new", CONTROL}


def test_a_user_keeps_an_arm_and_other_experiments_draw_anew() -> None:
    def arms(name: str) -> list[str]:
        experiment = Experiment(name, "n", 0.5, lambda: 0.99, user_of)
        return [experiment.arm(of(str(user))) for user in range(1_000)]

    first = arms("new")
    assert first == arms("new")
    assert first.count("new") == pytest.approx(500, abs=60)
    both = sum(one == "new" and two == "newer" for one, two in zip(first, arms("newer"), strict=True))
    assert both == pytest.approx(250, abs=50)
    assert Experiment("new", "n", 0.5, lambda: 0.99, user_of).arm(of()) == CONTROL, "nobody: by chance"


def test_who_names_targets_is_in_no_experiment() -> None:
    assert Experiment("new", "n", 1.0, lambda: 0.0).arm(of(allowed_targets=("a",))) == ""


def test_the_new_target_is_asked_first_and_by_the_other_arm_never() -> None:
    assert order("new") == "nab"
    assert order(CONTROL) == "ab"
    assert order("new", n=opened("n")) == "ab"
    assert order(CONTROL, a=opened("a"), b=opened("b")) in {"a", "b"}, "not even as a last resort"


def test_where_only_the_new_target_is_able_it_answers() -> None:
    assert order(CONTROL, "n") == "n"
