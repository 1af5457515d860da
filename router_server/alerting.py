"""People are told when a target goes down and when it is back, through a webhook.

The text is what Slack, Mattermost, Discord's ``/slack`` and most others take: ``{"text": …}``. Refuses to
decide what an outage is: `core.outages` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Final

import aiohttp

from router_server.background import log_unexpected_end
from router_server.config.alerts import AlertsConfig
from router_server.core.alerts import Alerts
from router_server.core.breaker import BreakerState
from router_server.core.outages import Outages, Turn
from router_server.core.route import Destination
from router_server.core.shared import SharedValues
from router_server.spending.thresholds import Thresholds
from router_server.state.store import key

Targets = Callable[[], Mapping[str, Destination]]

_log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_UPHOLD_EVERY: Final = 60
"""Looks, hence about seconds, between two words on an outage that lasts: a fifth of their life."""
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

    Attributes:
        url: may change; what is being tried again goes to the new one.
    """

    def __init__(self, url: str, first_pause: float = _FIRST_PAUSE) -> None:
        self.url = url
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
            async with self._session.post(self.url, json={"text": text}, allow_redirects=False) as answer:
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

    def change(self, config: AlertsConfig) -> None:
        """Go by ``config`` from now on; what was told stays told."""
        self._webhook.url = config.webhook.get_secret_value()
        self._outages.patience = config.after

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            for look in count(1):
                for name, news in self._news():
                    # A task of its own: a webhook that hangs keeps nobody else's news back.
                    group.create_task(_told(news), name=f"alert of {name}")
                if look % _UPHOLD_EVERY == 0:
                    for name in self._outages.down:
                        await self.alerts.upheld(_about(name))
                await asyncio.sleep(_LOOK_EVERY)

    def _news(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """Look once, and give what is to be told."""
        targets = self._targets()
        for name in self._outages.without(targets):
            yield name, self._tell_gone(name)
        for name, target in targets.items():
            turn = self._outages.seen(name, serving=_serving(target))
            if turn is not None:
                yield name, self._tell(name, target, turn)

    async def close(self) -> None:
        """Close every connection."""
        await self._webhook.close()

    async def _tell_gone(self, name: str) -> None:
        # Or it would count as told when a target is called so again.
        text = f"Target {name}, which was down, is in the configuration no more."
        await self.alerts.cleared(_about(name), text)

    async def _tell(self, name: str, target: Destination, turn: Turn) -> None:
        what = f"Target {name} (model {target.settings.model} of {target.provider})"
        if turn is Turn.DOWN:
            await self.alerts.raised(_about(name), f"{what} is down{_why(target)}.")
        else:
            await self.alerts.cleared(_about(name), f"{what} is back.")


async def _told(news: Coroutine[None, None, None]) -> None:
    """Tell it; whatever comes of that, what comes later is told too."""
    try:
        await news
    except Exception:  # noqa: BLE001 - one that fails must not silence the others
        _log.exception("An alert could not be told.")


def _about(name: str) -> str:
    return f"target/{name}"


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


class Alerting:
    """People are told as the configuration of the moment says: nobody, where it says nothing of that.

    Args:
        targets: gives them by name, as they are now.
        values: what replicas share, or this process's own.
        thresholds: tells of budgets.
    """

    def __init__(self, targets: Targets, values: SharedValues, thresholds: Thresholds) -> None:
        self._targets = targets
        self._values = values
        self._thresholds = thresholds
        self._watch: Watch | None = None
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def alerts(self) -> Alerts | None:
        """What others may tell people by; None: nobody is told."""
        return None if self._watch is None else self._watch.alerts

    def follow(self, config: AlertsConfig | None) -> None:
        """Go by ``config`` from now on. Takes no time."""
        if config is None:
            self._end()
        elif self._watch is None:
            self._watch = Watch(config, self._targets, self._values)
            self._looking = asyncio.create_task(self._watch.run(), name="alerts")
            self._looking.add_done_callback(log_unexpected_end)
        else:
            self._watch.change(config)
        self._thresholds.change(config.budget if config else (), self.alerts)

    async def close(self) -> None:
        """Tell nobody any more, and close every connection."""
        self._end()
        while self._ending:
            await asyncio.wait(self._ending)

    def _end(self) -> None:
        watch, looking = self._watch, self._looking
        self._watch = self._looking = None
        if watch is not None and looking is not None:
            looking.cancel()
            task = asyncio.create_task(_ended(watch, looking), name="end of alerts")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


async def _ended(watch: Watch, looking: asyncio.Task[None]) -> None:
    await asyncio.wait({looking})
    await watch.close()
