"""What came of active checks, kept where replicas share things, so that each knows what the others saw.

Only the last one of each provider, by whichever replica made it. Refuses to hold a check back for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

from router_server.core.shared import SharedValues, UnreachableError
from router_server.core.status import CheckReport
from router_server.core.target import Upstream

_LIFE = 600.0
"""Seconds: ten checks at the usual interval."""


class SharedReports:
    """Writes reports.

    Args:
        values: what replicas share.
        name_key: from a provider's unique name to its key.
    """

    def __init__(self, values: SharedValues, name_key: Callable[[str], str]) -> None:
        self._values = values
        self._name_key = name_key
        self._writing: set[asyncio.Task[None]] = set()

    def reported(self, upstream: Upstream, report: CheckReport) -> None:
        """Keep what came of a check, without waiting."""
        task = asyncio.create_task(self._keep(upstream, report), name=f"report on {upstream.unique_name}")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _keep(self, upstream: Upstream, report: CheckReport) -> None:
        fields = {"last": pack(report)}
        if upstream.last_failed_check is not None:
            fields["last_failed"] = pack(upstream.last_failed_check)
        try:
            await self._values.put_fields(self._name_key(upstream.unique_name), fields, _LIFE)
        except UnreachableError:
            return


def pack(report: CheckReport) -> bytes:
    """Return a report as it is kept: JSON."""
    return json.dumps(asdict(report)).encode()
