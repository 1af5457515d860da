"""API keys in the Redis that replicas share: one text with all their hashes, and the time of its last change.

The only values there without a time to live: somebody wrote them, and nothing can make them again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from router_server.auth.key_set import Change, Keys, KeysError, data_of, keys_of
from router_server.core.shared import UnreachableError, patient_for
from router_server.state.store import Argument, Cells, Reply, Script, Store, key

_ALL: Final = key("keys", "all")
_VERSION: Final = key("keys", "version")
_PLACE: Final = "the keys in Redis"
_LASTING: Final = 10 * 365 * 86_400.0
"""Seconds, in memory, where nothing outlives the process."""
_MOST_TRIES: Final = 10
_PATIENCE: Final = 5.0
"""Seconds that somebody who changes keys waits for Redis; a call would wait for 0.05."""

# Not a count: that of a Redis which was emptied would come by the number again that a server has seen.
_LUA: Final = """
local version = tonumber(redis.call('GET', KEYS[2]) or '0')
if version ~= tonumber(ARGV[1]) then
  return {0}
end
local changed = math.max(version + 1, now)
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], changed)
return {changed}
"""


def _local(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    version = int(cells.get(keys[1]) or 0)
    if version != int(arguments[0]):
        return [0]
    cells.put(keys[0], str(arguments[1]).encode(), _LASTING)
    changed = max(version + 1, cells.now)
    cells.put(keys[1], b"%d" % changed, _LASTING)
    return [changed]


_WRITE: Final = Script("keys", _LUA, _local)


class SharedKeys:
    """The keys in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __str__(self) -> str:
        return _PLACE

    async def version(self) -> Any:
        """Return what is another once the keys have changed.

        Raises:
            UnreachableError: the store does not answer.
        """
        return await self._store.get(_VERSION)

    async def keys(self) -> Keys:
        """Return the keys.

        Raises:
            KeysError: what is there is no set of keys.
            UnreachableError: the store does not answer.
        """
        keys, _version = await self._read()
        return keys

    async def change(self, change: Change) -> None:
        """Replace the keys by what ``change`` makes of them; where someone else was faster, of theirs.

        Raises:
            KeysError: they cannot be read or written, or ``change`` raises it.
        """
        try:
            with patient_for(_PATIENCE):
                for _ in range(_MOST_TRIES):
                    keys, version = await self._read()
                    text = json.dumps(data_of(change(keys)), separators=(",", ":"))
                    if await self._store.run(_WRITE, (_ALL, _VERSION), (version, text)) != [0]:
                        return
        except UnreachableError:
            raise KeysError("Redis does not answer; see whether its address is right and it is up") from None
        raise KeysError(f"{_PLACE}: others change them all the time; try again")

    async def _read(self) -> tuple[Keys, int]:
        text, version = await self._store.get_all((_ALL, _VERSION))
        try:
            data = None if text is None else json.loads(text)
        except ValueError:
            raise KeysError(f"{_PLACE}: are not JSON; delete {_ALL}, and make new ones") from None
        return keys_of(data, _PLACE), int(version or b"0")
