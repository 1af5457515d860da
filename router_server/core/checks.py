"""Active checks: each provider is asked on a schedule whether it is well, and at once when a failure says so.

A check that passes ends open periods and rests early; one that fails confirms what a 403 or a 404 only
suggested. Spends no tokens. Refuses to know how a provider is asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from router_server.core.breaker import BreakerState
from router_server.core.errors import BreakerEffect, UpstreamError
from router_server.core.status import CheckReport
from router_server.core.target import HealthCheck, Target, Upstream
from router_server.core.tending import Tending

_log = logging.getLogger(__name__)

_SOONER = 6
"""An unwell provider is asked six times as often, so that it is back in use soon after it has recovered."""


def unreported(upstream: Upstream, report: CheckReport) -> None:
    """Tell nobody."""


class Checks:
    """The active checks of all providers.

    Args:
        upstreams: the providers.
        targets_of: gives the targets of a provider, at any time.
        changed: called after every check and every verdict, for those who show health.
        reported: told what came of every check.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        targets_of: Callable[[Upstream], Sequence[Target]],
        changed: Callable[[], None],
        reported: Callable[[Upstream, CheckReport], None] = unreported,
    ) -> None:
        self._changed = changed
        self._reported = reported
        self._suspects: dict[Target, BreakerEffect] = {}
        self._asked: dict[Upstream, asyncio.Event] = {}
        self._tending = Tending(self._watch, lambda upstream: f"check {upstream.name}")
        self.change(upstreams, targets_of)

    def change(
        self, upstreams: Sequence[Upstream], targets_of: Callable[[Upstream], Sequence[Target]]
    ) -> None:
        """Check these providers from now on; those that were checked before keep their schedule."""
        self._targets_of = targets_of
        self._asked = {upstream: self._asked.get(upstream, asyncio.Event()) for upstream in upstreams}
        kept = {target for upstream in upstreams for target in targets_of(upstream)}
        self._suspects = {target: effect for target, effect in self._suspects.items() if target in kept}
        self._tending.change(upstream for upstream in upstreams if upstream.check is not None)

    async def run(self) -> None:
        """Check every provider until cancelled."""
        await self._tending.run()

    def soon(self, target: Target, effect: BreakerEffect) -> None:
        """Check the target's provider now; a failure is then held against the target."""
        if target.upstream not in self._asked:
            return  # a call that outlived the target
        self._suspects[target] = effect
        self.ask(target.upstream)

    def ask(self, upstream: Upstream) -> None:
        """Check a provider now, rather than at its next turn."""
        asked = self._asked.get(upstream)
        if asked is not None:
            asked.set()

    def engine_changed(self, upstream: Upstream) -> None:
        """What was known of the provider was about its engine as it was: ask anew."""
        upstream.healthy = None
        self._asked[upstream].set()
        self._changed()

    async def check(self, upstream: Upstream, settings: HealthCheck) -> bool | None:
        """Ask one provider once, and apply what it says."""
        suspects = [t for t in self._targets_of(upstream) if t in self._suspects]
        began = time.monotonic()
        well, error = await _verdict(upstream, settings)
        report = CheckReport(well, time.time(), time.monotonic() - began, error)
        upstream.checked = True
        upstream.last_check = report
        if well is False:
            upstream.last_failed_check = report
        self._apply(upstream, well, suspects)
        self._reported(upstream, report)
        return well

    async def _watch(self, upstream: Upstream) -> None:
        settings = upstream.check or HealthCheck()
        asked = self._asked[upstream]
        # Checked before it came here, under other settings: its turn comes when it would have come.
        await self._turn(asked, self._pause(upstream, settings) - _age(upstream.last_check))
        while True:
            asked.clear()
            await self.check(upstream, settings)
            await self._turn(asked, self._pause(upstream, settings))

    @staticmethod
    async def _turn(asked: asyncio.Event, pause: float) -> None:
        if pause <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await asked.wait()

    def _pause(self, upstream: Upstream, settings: HealthCheck) -> float:
        targets = self._targets_of(upstream)
        unwell = upstream.healthy is False or any(t.breaker.state is BreakerState.OPEN for t in targets)
        interval = settings.interval / _SOONER if unwell else settings.interval
        return interval * random.uniform(0.9, 1.1)  # noqa: S311 - replicas do not check in step

    def _apply(self, upstream: Upstream, well: bool | None, suspects: Collection[Target]) -> None:
        upstream.healthy = well
        for target in self._targets_of(upstream):
            # Asked because of this target: that the provider is well says nothing for its model or our
            # rights to it, so it rests until the next check that comes by itself.
            suspicion = self._suspects.pop(target, None) if target in suspects else None
            if well is not False and suspicion is None:
                target.cooldown.unbench()
            if well:
                target.breaker.check_passed()
            elif well is False and suspicion is BreakerEffect.TRIP_OR_CHECK:
                target.breaker.trip()
            elif well is False and suspicion is BreakerEffect.CHECK:
                target.breaker.check_failed()
        self._changed()


def _age(report: CheckReport | None) -> float:
    return math.inf if report is None else time.time() - report.at


async def _verdict(upstream: Upstream, settings: HealthCheck) -> tuple[bool | None, str]:
    """Return whether it is well, and why it is not."""
    try:
        async with asyncio.timeout(settings.timeout):
            well = await _answer(upstream)
    except TimeoutError:
        return False, "timeout"
    except UpstreamError as error:
        return False, error.reason
    except Exception:  # noqa: BLE001 - a kind is someone else's code; the checks of the others go on
        _log.exception("The active check of provider %s is broken.", upstream.name)
        return False, "broken_check"
    return well, "" if well is not False else "unwell"


async def _answer(upstream: Upstream) -> bool | None:
    """Ask; of an engine that is not ready its own state tells more than any check."""
    if upstream.engine is not None and not upstream.engine.ready:
        return None
    return await upstream.provider.check()
