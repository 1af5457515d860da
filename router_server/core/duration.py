"""Durations as people write them in a configuration: ``500ms``, ``5s``, ``1h30m``.

Pure: text in, seconds out. Refuses to know where the text stood; whoever read it names the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_SECONDS: Final[Mapping[str, Decimal]] = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3_600),
    "d": Decimal(86_400),
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d)")
_WHOLE = re.compile(rf"{_NUMBER}|(?:{_NUMBER}\s*(?:ms|s|m|h|d)\s*)+")
_LONGEST_TEXT = 64


def parse_duration(text: str | int | float) -> float:  # noqa: PYI041 - int says that YAML's 5 is welcome
    """Return the seconds that ``text`` means; a bare number is seconds.

    Units are ms, s, m, h and d, and parts add up: ``1m30s`` is 90. The result is finite and at least 0.

    Raises:
        ValueError: not a duration, negative, or not finite; the message says what one looks like.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(_complaint(text))  # noqa: TRY004 - pydantic turns ValueError into a message, not TypeError
    if isinstance(text, int | float):
        return _from_number(text)
    return _from_text(text.strip())


def _from_number(number: float) -> float:
    if not 0 <= number < math.inf:
        raise ValueError(_complaint(number))
    return float(number)


def _from_text(text: str) -> float:
    if len(text) > _LONGEST_TEXT or not _WHOLE.fullmatch(text):
        raise ValueError(_complaint(text[:_LONGEST_TEXT]))
    # Decimal, so that 500ms is 0.5 and not a neighbour of it.
    parts = _PART.findall(text) or [(text, "s")]
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts))


def _complaint(given: object) -> str:
    return (
        f"{given!r} is not a duration: write seconds, or numbers with a unit, as in 5, 500ms, 5s, 2m or 1h30m"
    )
