"""What the name of a model tells about what it can do.

Of one API's models some chat and some embed, none does both, and the API does not say which. Names do,
where the publisher keeps to a pattern; a target's ``capabilities`` win over any guess.
"""

from __future__ import annotations

from typing import Final

from router_server.core.provider import Capability

EMBEDDING: Final = frozenset({Capability.EMBED, Capability.EMBED_DIMENSIONS, Capability.EMBED_TASK})


def embeds(model: str) -> bool:
    """Tell whether the name is an embedding model's: text-embedding-3-small, gemini-embedding-001."""
    return "embed" in model.lower()


def one_or_the_other(capabilities: frozenset[Capability], model: str) -> frozenset[Capability]:
    """Return what ``model`` can do where every embedding model is called one."""
    return capabilities & EMBEDDING if embeds(model) else capabilities - EMBEDDING


def embedding_if_called_so(capabilities: frozenset[Capability], model: str) -> frozenset[Capability]:
    """Return what ``model`` can do where an embedding model may have any name."""
    return capabilities & EMBEDDING if embeds(model) else capabilities
