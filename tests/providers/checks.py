"""What an active check comes to, however the provider says it."""

from __future__ import annotations

from router_server.core.errors import UpstreamError
from router_server.core.provider import Provider


async def verdict_of(provider: Provider) -> bool | None:
    """Return True, None, or False: also where the check says why."""
    try:
        return await provider.check()
    except UpstreamError:
        return False
