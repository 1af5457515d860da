"""A set of API keys as it is kept: plain values to keys and back, and what people do to it.

Pure. Refuses to know where it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from router_server.config.callers import KeyConfig
from router_server.config.section import Section

Keys = tuple[KeyConfig, ...]

Change = Callable[[Keys], Sequence[KeyConfig]]
"""Makes of the keys that there are those that there shall be."""


class KeysError(Exception):
    """The keys cannot be read or changed; the message says why, and what to do."""


class _Content(Section):
    keys: Keys = Field(default=())


def keys_of(data: Any, place: str) -> Keys:
    """Return the keys that were kept as ``data`` at ``place``.

    Raises:
        KeysError: it is not what `data_of` returns.
    """
    try:
        return _Content.model_validate({} if data is None else data).keys
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, wrong["loc"]))
        raise KeysError(f"{place}: {where}: {wrong['msg']}; correct it, or restore an older one") from None


def data_of(keys: Sequence[KeyConfig]) -> Any:
    """Return keys as plain values, without what they leave to the defaults."""
    return {"keys": [key.model_dump(mode="json", exclude_defaults=True) for key in keys]}


@dataclass(frozen=True, slots=True)
class Adding:
    """Adds a key of someone who has none yet."""

    key: KeyConfig

    def __call__(self, keys: Keys) -> Sequence[KeyConfig]:
        """Return the keys with one more.

        Raises:
            KeysError: someone of that name has one.
        """
        if any(key.name == self.key.name for key in keys):
            raise KeysError(f"{self.key.name} has a key already; `keys rotate` replaces it")
        return (*keys, self.key)


@dataclass(frozen=True, slots=True)
class Revoking:
    """Removes every key of a name."""

    name: str

    def __call__(self, keys: Keys) -> Sequence[KeyConfig]:
        """Return the keys of the others.

        Raises:
            KeysError: nobody of that name has one.
        """
        kept = tuple(key for key in keys if key.name != self.name)
        if len(kept) == len(keys):
            raise KeysError(f"nobody called {self.name} has a key; `keys list` tells who has")
        return kept


@dataclass(frozen=True, slots=True)
class Rotating:
    """Gives a name a new key beside its newest one, which then ends; older ones go.

    Attributes:
        name: whose key.
        sha256: of the new one.
        now: when it is made.
        overlap_ends: when the key before it ends, unless that ends earlier by itself.
    """

    name: str
    sha256: str
    now: datetime
    overlap_ends: datetime

    def __call__(self, keys: Keys) -> Sequence[KeyConfig]:
        """Return the keys with the new one.

        Raises:
            KeysError: nobody of that name has a key.
        """
        theirs = [key for key in keys if key.name == self.name]
        if not theirs:
            raise KeysError(f"nobody called {self.name} has a key; `keys add` makes one")
        newest = theirs[-1]
        new = newest.model_copy(update={"sha256": self.sha256, "created": self.now})
        ends = min(newest.expires or self.overlap_ends, self.overlap_ends)
        old = newest.model_copy(update={"expires": ends})
        others = tuple(key for key in keys if key.name != self.name)
        return (*others, *([old] if ends > self.now else []), new)
