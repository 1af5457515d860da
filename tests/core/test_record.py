"""Records behave like frozen dataclasses, but for the cost of making one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_server.core.record import record


@record(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@record(eq=False, frozen=True, slots=True)
class Ticket:
    number: int


def test_equal_fields_make_equal_records_with_one_hash() -> None:
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(0)
    assert {Point(1): "there"}[Point(1)] == "there"


def test_a_record_without_equality_is_only_itself() -> None:
    assert Ticket(1) != Ticket(1)


def test_a_record_takes_no_further_attributes() -> None:
    assert not hasattr(Point(1), "__dict__")


if TYPE_CHECKING:
    # mypy reports the comment as unused as soon as a record may be changed.
    Point(1).x = 2  # type: ignore[misc]
