"""Active checks: each provider is asked on a schedule whether it is well, and at once when a failure says so.

A check that passes ends open periods and rests early; one that fails confirms what a 403 or a 404 only
suggested. Of several replicas one asks, whoever's turn it is, and the others hear what came of it. Spends no
tokens. Refuses to know how a provider is asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from router_server.core.breaker import BreakerState
from router_server.core.errors import BreakerEffect, UpstreamError
from router_server.core.rota import Rota
from router_server.core.shared import UnreachableError, patient_for
from router_server.core.status import CheckReport
from router_server.core.target import HealthCheck, Target, Upstream
from router_server.core.tending import Tending

_log = logging.getLogger(__name__)

_SOONER = 6
"""An unwell provider is asked six times as often, so that it is back in use soon after it has recovered."""


_LISTEN: Final = 1.0
"""Seconds between two looks at what came of other replicas' checks."""

_PATIENCE: Final = 1.0
"""Seconds for the shared state to answer: no call waits for it."""

_SLACK: Final = 1.0
"""Seconds that a turn is kept beyond the longest check, for the report to be written."""


class Checks:
    """The active checks of all providers.

    Args:
        upstreams: the providers.
        targets_of: gives the targets of a provider, at any time.
        changed: called after every check and every verdict, for those who show health.
        rota: whose turn it is among replicas; None: each makes every check.
        name: of this process, for those who read its reports.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        targets_of: Callable[[Upstream], Sequence[Target]],
        changed: Callable[[], None],
        rota: Rota | None = None,
        name: str = "",
    ) -> None:
        self._name = name
        self._changed = changed
        self._rota = rota
        self._heard: dict[Upstream, CheckReport] = {}
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
        self._heard = {upstream: heard for upstream, heard in self._heard.items() if upstream in self._asked}
        kept = {target for upstream in upstreams for target in targets_of(upstream)}
        self._suspects = {target: effect for target, effect in self._suspects.items() if target in kept}
        self._tending.change(upstream for upstream in upstreams if upstream.check is not None)

    async def run(self) -> None:
        """Check every provider until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tending.run(), name="checks")
            if self._rota is not None:
                group.create_task(self._listen(self._rota), name="others' checks")

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
        self.ask(upstream)
        self._changed()

    async def check(self, upstream: Upstream, settings: HealthCheck, *, asked: bool = False) -> CheckReport:
        """Ask one provider once, and apply what it says; ``asked``: out of turn."""
        suspects = [t for t in self._targets_of(upstream) if t in self._suspects]
        began = time.monotonic()
        well, error = await _verdict(upstream, settings)
        report = CheckReport(well, time.time(), time.monotonic() - began, error, asked, self._name)
        _note(upstream, report)
        self._apply(upstream, well, suspects)
        return report

    def hear(self, upstream: Upstream, report: CheckReport) -> None:
        """Apply what came of another replica's check."""
        _say(upstream, upstream.last_check, report)
        _note(upstream, report)
        # What another one suspects says nothing of what is suspected here.
        pending = self._targets_of(upstream) if report.asked else self._suspects
        self._apply(upstream, report.well, (), resting=pending)

    async def _watch(self, upstream: Upstream) -> None:
        settings = upstream.check or HealthCheck()
        asked = self._asked[upstream]
        # Checked before it came here, under other settings: its turn comes when it would have come.
        await self._turn(asked, self._pause(upstream, settings) - _age(upstream.last_check))
        while True:
            suddenly = asked.is_set()
            asked.clear()
            wait = 0.0 if suddenly else await self._until_free(upstream, settings)
            if wait <= 0:
                before = upstream.last_check
                report = await self.check(upstream, settings, asked=suddenly)
                _say(upstream, before, report)
                wait = self._pause(upstream, settings)
                await self._tell(upstream, report, wait)
            await self._turn(asked, wait)

    async def _until_free(self, upstream: Upstream, settings: HealthCheck) -> float:
        """Take the turn, and return 0; or the seconds until it may be free."""
        if self._rota is None or upstream.scope is None:
            return 0.0
        name = upstream.shared_name(upstream.unique_name)
        try:
            with patient_for(_PATIENCE):
                return await self._rota.take(name, settings.timeout + _SLACK)
        except UnreachableError:
            return 0.0

    async def _tell(self, upstream: Upstream, report: CheckReport, due: float) -> None:
        if self._rota is None or upstream.scope is None:
            return
        name = upstream.shared_name(upstream.unique_name)
        with suppress(UnreachableError), patient_for(_PATIENCE):
            await self._rota.report(name, report, upstream.last_failed_check, due)

    async def _listen(self, rota: Rota) -> None:
        while True:
            await self._listen_once(rota)
            await asyncio.sleep(_LISTEN)

    async def _listen_once(self, rota: Rota) -> None:
        shared = [one for one in self._asked if one.check is not None and one.scope is not None]
        if not shared:
            return
        try:
            with patient_for(_PATIENCE):
                found = await rota.reports([one.shared_name(one.unique_name) for one in shared])
        except UnreachableError:
            return
        for upstream, report in zip(shared, found, strict=True):
            if (
                report in {None, upstream.last_check, self._heard.get(upstream)}
                or upstream not in self._asked
            ):
                continue
            self._heard[upstream] = report
            self.hear(upstream, report)

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

    def _apply(
        self,
        upstream: Upstream,
        well: bool | None,
        suspects: Collection[Target],
        resting: Collection[Target] = (),
    ) -> None:
        upstream.healthy = well
        for target in self._targets_of(upstream):
            # Asked because of this target: that the provider is well says nothing for its model or our
            # rights to it, so it rests until the next check that comes by itself.
            suspicion = self._suspects.pop(target, None) if target in suspects else None
            if well is not False and suspicion is None and target not in resting:
                target.cooldown.unbench()
            if well:
                target.breaker.check_passed()
            elif well is False and suspicion is BreakerEffect.TRIP_OR_CHECK:
                target.breaker.trip()
            elif well is False and suspicion is BreakerEffect.CHECK:
                target.breaker.check_failed()
        self._changed()


def _note(upstream: Upstream, report: CheckReport) -> None:
    upstream.checked = True
    upstream.last_check = report
    if report.well is False:
        upstream.last_failed_check = report


def _say(upstream: Upstream, before: CheckReport | None, report: CheckReport) -> None:
    """Write into the log what has changed."""
    was_unwell = before is not None and before.well is False
    if report.well is False and not was_unwell:
        _log.warning(
            "Provider %s fails its check (%s, after %.0f ms): its targets are asked last.",
            upstream.unique_name,
            report.error,
            report.took * 1_000,
        )
    elif report.well and was_unwell:
        _log.info("Provider %s passes its check again.", upstream.unique_name)


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
