"""Records are values: frozen, compared by their fields, and silent about what was said."""

from __future__ import annotations

from typing import ClassVar

import pytest

from router_server.core.record import Record, replace


class Point(Record, frozen=True):
    x: int
    y: int = 0


class Ticket(Record, frozen=True, eq=False):
    number: int


class Letter(Record, frozen=True):
    to: str
    text: str

    unsaid: ClassVar[frozenset[str]] = frozenset({"text"})


def test_equal_fields_make_equal_records_with_one_hash() -> None:
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(0)
    assert {Point(1): "there"}[Point(1)] == "there"
    assert replace(Point(1), y=2) == Point(1, 2)


def test_a_record_without_equality_is_only_itself() -> None:
    assert Ticket(1) != Ticket(1)


def test_a_record_never_changes() -> None:
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]  # what this is about
    assert not hasattr(point, "__dict__")


def test_what_is_not_to_be_said_is_in_no_repr() -> None:
    assert repr(Letter("you", "a secret")) == "Letter(to='you')"
    assert repr(Point(1)) == "Point(x=1, y=0)"
