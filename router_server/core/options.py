"""Provider options: which names a caller may not set through that escape hatch.

The router itself sets them, so that what was asked, counted and limited is what is sent. A name that is
here is refused for every kind, at the edge and again by the provider. Refuses to know any upstream's API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from router_server.core.types import Json

REFUSED_OPTIONS: Final[frozenset[str]] = frozenset(
    {
        "model",
        "messages",
        "input",
        "encoding_format",
        "stream",
        "stream_options",
        "n",
        "user",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
    }
)
"""Names at the top level of a provider's options that a caller may not set."""


def refused_options(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that a caller may not set, sorted; empty where all are fine."""
    return tuple(sorted(REFUSED_OPTIONS.intersection(names)))


def options_for(options: Mapping[str, Json], kind: str, name: str) -> Json:
    """Return a caller's options for a provider: those of its kind, under those of its own name."""
    return {**options.get(kind, {}), **options.get(name, {})} if options else {}
