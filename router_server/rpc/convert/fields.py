"""The bad fields of one request, gathered so that one answer names them all, and the checks of plain values.

Refuses to know any message of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.types import Json

_MOST_GATHERED = 64
"""More than a status can carry; the rest is only counted."""

_LONGEST_QUOTE = 40
_NANOS: Final = 1_000_000_000
_MOST_SECONDS: Final = 315_576_000_000
"""What google.protobuf.Duration allows."""

_T = TypeVar("_T")


class Fields:
    """Gathers what is wrong with one request. Every check returns a value even where the field is bad."""

    __slots__ = ("_count", "_found")

    def __init__(self) -> None:
        self._found: list[Violation] = []
        self._count = 0

    def __bool__(self) -> bool:
        """Whether any field was bad."""
        return bool(self._found)

    def wrong(self, field: str, description: str) -> None:
        """Note that ``field`` is bad; ``description`` says what to do about it."""
        self._count += 1
        if len(self._found) < _MOST_GATHERED:
            self._found.append(Violation(field, description))

    def raise_if_any(self) -> None:
        """End the reading of a request.

        Raises:
            RouterError: INVALID_REQUEST, if any field was bad.
        """
        if not self._found:
            return
        first = self._found[0]
        named = f"{first.field}: {first.description}"
        message = named if self._count == 1 else f"{self._count} fields are bad; the first is {named}"
        raise RouterError(Reason.INVALID_REQUEST, message, violations=tuple(self._found))

    def text(self, field: str, value: str, *, most: int, required: bool = False) -> str:
        """Check the length of a text, in characters."""
        if required and not value:
            self.wrong(field, "must not be empty")
        elif len(value) > most:
            self.wrong(field, f"has {len(value)} characters; {most} are allowed")
        return value

    def integer(self, field: str, value: int, least: int, most: int | None = None) -> int:
        """Check the range of a number."""
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"between {least} and {most}"
            self.wrong(field, f"must be {allowed}, not {value}")
        return value

    def real(self, field: str, value: float, least: float, most: float) -> float:
        """Check the range of a number; NaN is in none."""
        if not least <= value <= most:
            self.wrong(field, f"must be between {least:g} and {most:g}, not {value:g}")
        return value

    def seconds(self, field: str, value: Duration, *, least: float, most: float) -> float:
        """Check a duration, and return it in seconds."""
        if not _well_formed(value):
            self.wrong(field, "is not a valid duration: seconds or nanos are out of range, or differ in sign")
            return least
        seconds = value.seconds + value.nanos / _NANOS
        if not least <= seconds <= most:
            self.wrong(field, f"must be between {least:g} s and {most:g} s, not {seconds:g} s")
        return seconds

    def choice(self, field: str, value: int, known: Mapping[int, _T], names: EnumTypeWrapper) -> _T | None:
        """Look an enum's value up; None where it is unspecified or not one that this server knows."""
        if value == 0:
            return None
        found = known.get(value)
        if found is None:
            allowed = ", ".join(names.Name(number) for number in known)
            self.wrong(field, f"{value} is not a value that this server knows; use one of {allowed}")
        return found

    def json_object(self, field: str, text: str) -> Json:
        """Parse a JSON object."""
        try:
            parsed = msgspec.json.decode(text)
        except msgspec.MsgspecError as error:
            # msgspec's messages give a byte offset and a kind of mistake, and quote nothing of the text.
            self.wrong(field, f"must be a JSON object, but cannot be parsed: {error}")
            return {}
        except RecursionError:
            self.wrong(field, "must be a JSON object, but is nested too deeply")
            return {}
        if not isinstance(parsed, dict):
            self.wrong(field, f"must be a JSON object such as {{}}, not {_json_kind(parsed)}")
            return {}
        return parsed


def quote(text: str) -> str:
    """Return a caller's own text as it may stand in a description: short, quoted, printable."""
    shown = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
    return '"' + "".join(character if character.isprintable() else "?" for character in shown) + '"'


def _well_formed(value: Duration) -> bool:
    same_sign = value.seconds * value.nanos >= 0
    return abs(value.nanos) < _NANOS and abs(value.seconds) <= _MOST_SECONDS and same_sign


def _json_kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "a number"
