"""Turns to check providers, and what came of the checks, in a store.

Refuses to know who checks what, and how.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from router_server.core.status import CheckReport
from router_server.state.store import Argument, Cells, Reply, Script, Store, key

_LIFE: Final = 600.0
"""Seconds for which a report is kept: ten checks at the usual interval."""

_TAKE_LUA: Final = """
if redis.call('SET', KEYS[1], now, 'NX', 'PX', ARGV[1]) then return {0} end
return {math.max(1, redis.call('PTTL', KEYS[1]))}
"""

_REPORT_LUA: Final = f"""
redis.call('HSET', KEYS[1], 'last', ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'last_failed', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], {round(_LIFE * 1_000)})
redis.call('SET', KEYS[2], now, 'PX', ARGV[3])
return {{}}
"""

_REPORTS_LUA: Final = """
local reply = {}
for i, name in ipairs(KEYS) do reply[i] = redis.call('HGET', name, 'last') or '' end
return reply
"""


def _take(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    taken: int | None = cells.get(keys[0])
    if taken is not None:
        return [max(1, taken - cells.now)]
    lasting = int(arguments[0])
    cells.put(keys[0], cells.now + lasting, lasting / 1_000)
    return [0]


def _report(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    last, failed, due = arguments
    found = {**(cells.get(keys[0]) or {}), "last": last, **({"last_failed": failed} if failed else {})}
    cells.put(keys[0], found, _LIFE)
    cells.put(keys[1], cells.now + int(due), int(due) / 1_000)
    return []


def _reports(cells: Cells, keys: Sequence[str], _arguments: Sequence[Argument]) -> Reply:
    return [(cells.get(one) or {}).get("last", b"") for one in keys]


TAKE: Final = Script("take_turn", _TAKE_LUA, _take)
"""Key: of the turn. Argument: milliseconds that it lasts. Answers 0, or the milliseconds that it is taken."""

REPORT: Final = Script("report_check", _REPORT_LUA, _report)
"""Keys: of the report, of the turn. Arguments: the last report, the last of a failure or nothing,
milliseconds until the next turn."""

REPORTS: Final = Script("reports", _REPORTS_LUA, _reports)
"""Keys: of reports. Answers the last of each, empty where there is none."""

_FIELDS: Final = frozenset(one.name for one in fields(CheckReport))


class SharedRota:
    """Keeps them in ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, name: str, lasting: float) -> float:
        """See `Rota`."""
        (left,) = await self._store.run(TAKE, (_turn(name),), (_milliseconds(lasting),))
        return int(left) / 1_000

    async def report(self, name: str, report: CheckReport, failed: CheckReport | None, due: float) -> None:
        """See `Rota`."""
        packed = _pack(report), b"" if failed is None else _pack(failed)
        await self._store.run(REPORT, (key("health", name), _turn(name)), (*packed, _milliseconds(due)))

    async def reports(self, names: Sequence[str]) -> Sequence[CheckReport | None]:
        """See `Rota`."""
        found: Sequence[Any] = await self._store.run(REPORTS, [key("health", name) for name in names], ())
        return [_unpack(packed) for packed in found]


def _turn(name: str) -> str:
    return key("health", name, "turn")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def _pack(report: CheckReport) -> bytes:
    return json.dumps(asdict(report)).encode()


def _unpack(packed: bytes) -> CheckReport | None:
    """Read a report; None where there is none, or one of another version that cannot be read."""
    if not packed:
        return None
    try:
        found = json.loads(packed)
        return CheckReport(**{name: value for name, value in found.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None
