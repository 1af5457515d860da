"""One file per kind of upstream, and the registry that finds them.

A kind is an entry point of the group ``modelrouter.providers`` that names a `ProviderKind`; the built-in
kinds are declared in the same way as those of any other package. Only the kind that is asked for is
imported, so that a start pays for what its configuration uses. Refuses to know any kind by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from router_server.core.provider import ProviderKind

GROUP: Final = "modelrouter.providers"


class SetupError(Exception):
    """A provider cannot be made on this machine; the message says what is wrong and what to do."""


@cache  # looking for it reads the metadata of every installed package: 9 ms, and a start asks 24 times
def load_kind(name: str) -> ProviderKind:
    """Import and return the kind that a configuration calls ``name``.

    Raises:
        SetupError: no package declares it, more than one does, or what is declared cannot be used. The
            message names the known kinds or the distribution.
    """
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise SetupError(f"there is no provider kind {name!r}; known kinds: {', '.join(names())}")
    if len(found) > 1:
        owners = " and ".join(sorted(_owner(entry) for entry in found))
        raise SetupError(f"provider kind {name!r} is declared by {owners}; uninstall all but one")
    return _load(found[0])


def kinds() -> Mapping[str, ProviderKind]:
    """Import every kind there is and return them by name, in alphabetical order.

    Raises:
        SetupError: as `load_kind`.
    """
    return {name: load_kind(name) for name in names()}


def names() -> tuple[str, ...]:
    """Return the name of every declared kind, in alphabetical order, importing none."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def _load(entry: EntryPoint) -> ProviderKind:
    try:
        kind = entry.load()
    except Exception as error:  # someone else's module may raise anything while it is imported
        raise SetupError(
            f"provider kind {entry.name!r} of {_owner(entry)} cannot be imported from {entry.value}: "
            f"{error!r}; reinstall that package with what it needs"
        ) from error
    if not isinstance(kind, ProviderKind):
        raise SetupError(
            f"provider kind {entry.name!r} of {_owner(entry)}: {entry.value} is a "
            f"value of type {type(kind).__name__}, not a ProviderKind; the entry point must name one"
        )
    if kind.name != entry.name:
        raise SetupError(
            f"provider kind {entry.name!r} of {_owner(entry)} calls itself {kind.name!r}; "
            "the entry point and the kind must have one name"
        )
    return kind


def _owner(entry: EntryPoint) -> str:
    return f"distribution {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
