"""Of several replicas, whose turn it is to check a provider, and what came of the others' checks.

Each check is due at a time that all know; whoever asks first then makes it, and the others read what came of
it. Nobody has the turn for longer than one check: where a replica dies, another one makes the next. Refuses
to know where turns and reports are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from router_server.core.status import CheckReport


class Rota(Protocol):
    """Turns and reports of providers, each by a name that all replicas have for it.

    Every method raises `UnreachableError` where the shared state is gone or does not answer in time.
    """

    async def take(self, name: str, lasting: float) -> float:
        """Take the turn for ``lasting`` seconds at most; return 0, or the seconds until it may be free."""

    async def report(self, name: str, report: CheckReport, failed: CheckReport | None, due: float) -> None:
        """Keep the last check and the last that failed; the next turn comes in ``due`` seconds."""

    async def reports(self, names: Sequence[str]) -> Sequence[CheckReport | None]:
        """Return the last report on each, None where there is none."""
