"""People are told when a target goes down and when it is back, through a webhook.

The text is what Slack, Mattermost, Discord's ``/slack`` and most others take: ``{"text": …}``. Refuses to
decide what an outage is: `core.outages` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aiohttp

from router_server.config.alerts import AlertsConfig
from router_server.core.alerts import Alerts
from router_server.core.breaker import BreakerState
from router_server.core.outages import Outages, Turn
from router_server.core.shared import SharedValues
from router_server.core.target import Destination
from router_server.state.store import key

Targets = Callable[[], Mapping[str, Destination]]

_log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
_TRIES: Final = 4
_FIRST_PAUSE: Final = 1.0
"""Seconds: a webhook that fails is tried again after 1, 2 and 4, and then the log has to do."""

_OK: Final = range(200, 300)


class Webhook:
    """Tells one URL.

    Args:
        url: whoever knows it may write there, so it is shown to nobody.
        first_pause: seconds before it is tried again, doubling.
    """

    def __init__(self, url: str, first_pause: float = _FIRST_PAUSE) -> None:
        self._url = url
        self._first_pause = first_pause
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)

    async def tell(self, text: str) -> None:
        """Send ``text``; what cannot be sent is in the log already."""
        pause = self._first_pause
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(pause)
                pause *= 2
            why = await self._send(text)
            if not why:
                return
        _log.warning("An alert could not be sent to the webhook (%s).", why)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _send(self, text: str) -> str:
        try:
            async with self._session.post(self._url, json={"text": text}, allow_redirects=False) as answer:
                return "" if answer.status in _OK else f"http_{answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return type(error).__name__


class Watch:
    """Looks at the targets every second, and raises and clears alerts.

    Args:
        config: what the configuration says.
        targets: gives them by name, as they are now.
        values: what replicas share, or this process's own.
    """

    def __init__(self, config: AlertsConfig, targets: Targets, values: SharedValues) -> None:
        self._targets = targets
        self._webhook = Webhook(config.webhook.get_secret_value())
        self._outages = Outages(config.after, asyncio.get_running_loop().time)
        self.alerts = Alerts(values, partial(key, "alerts"), self._webhook.tell)

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for name, target in self._targets().items():
                    turn = self._outages.seen(name, serving=_serving(target))
                    if turn is not None:
                        # A task of its own: a webhook that hangs keeps nobody else's news back.
                        group.create_task(self._tell(name, target, turn), name=f"alert of {name}")
                await asyncio.sleep(_LOOK_EVERY)

    async def close(self) -> None:
        """Close every connection."""
        await self._webhook.close()

    async def _tell(self, name: str, target: Destination, turn: Turn) -> None:
        what = f"Target {name} (model {target.settings.model} of {target.provider})"
        if turn is Turn.DOWN:
            await self.alerts.raised(f"target/{name}", f"{what} is down{_why(target)}.")
        else:
            await self.alerts.cleared(f"target/{name}", f"{what} is back.")


def _serving(target: Destination) -> bool | None:
    """Tell whether calls are answered there; None while a half-open breaker finds that out."""
    closed = {one.breaker.state is BreakerState.CLOSED for one in target.endpoints if one.takes_calls}
    return True if True in closed else (None if closed else False)


def _why(target: Destination) -> str:
    reasons = {
        endpoint.upstream.last_check.error
        for endpoint in target.endpoints
        if endpoint.upstream.last_check is not None and endpoint.upstream.last_check.error
    }
    states = {f"breaker {endpoint.breaker.state.value}" for endpoint in target.endpoints}
    told = sorted(reasons) or sorted(states)
    return f": {', '.join(told)}"


@asynccontextmanager
async def alerts_sent(
    config: AlertsConfig | None, targets: Targets, values: SharedValues
) -> AsyncIterator[Alerts | None]:
    """Watch ``targets`` while the context lasts; give what others may raise alerts with, None: nobody."""
    if config is None:
        yield None
        return
    watch = Watch(config, targets, values)
    task = asyncio.create_task(watch.run(), name="alerts")
    try:
        yield watch.alerts
    finally:
        task.cancel()
        await asyncio.wait({task})
        await watch.close()
