"""What came of a provider's checks, as trailers of the answer about its health: written here, and read back.

Refuses to know who checks, and who asks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Final

from router_server.core.status import CheckReport

_LAST: Final = "x-last-check"
_LAST_FAILED: Final = "x-last-failed-check"
_FIELDS: Final = frozenset(one.name for one in fields(CheckReport))

Trailers = tuple[tuple[str, str], ...]
"""Metadata whose values are text, as those of names without ``-bin`` are."""


def reports(last: CheckReport | None, last_failed: CheckReport | None) -> Trailers:
    """Return trailers that tell the last check, and the last one that failed, as far as there are any."""
    told = ((_LAST, last), (_LAST_FAILED, last_failed))
    return tuple((name, json.dumps(asdict(report))) for name, report in told if report is not None)


def reported(trailers: Trailers) -> tuple[CheckReport | None, CheckReport | None]:
    """Return the last check and the last one that failed; None for what is not told."""
    told = dict(trailers)
    return _read(told.get(_LAST)), _read(told.get(_LAST_FAILED))


def _read(told: str | None) -> CheckReport | None:
    """Read a report; of another version what is known here."""
    if told is None:
        return None
    return CheckReport(**{name: value for name, value in json.loads(told).items() if name in _FIELDS})
