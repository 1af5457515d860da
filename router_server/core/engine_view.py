"""An engine as the calls of one process see it: whether they may go there, wait, or pass it by.

While the engine is not ready its provider's queue lets nobody out. Refuses to know how the engine's state
gets here, and how a wish to wake it gets there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router_server.core.engine import RESTING, EngineState, EngineStatus, WhileAway
from router_server.core.limiter import Limiter

NOT_READY: Final = "engine_not_ready"
"""Why a call that finds the engine away, or waits for it in vain, goes elsewhere."""

_NOBODY_WAITS: Final = frozenset({EngineState.FAILED, EngineState.LEAVING})


class EngineView:
    """One engine.

    Args:
        limiter: the provider's; paused while the engine is not ready.
        key: which engine it is.
        while_starting: what calls do while it starts, or waits to be started again.
        while_waking: what calls do while it sleeps or wakes.

    Attributes:
        status: what was heard last; the time asleep in it is some seconds old.
        progress: grows with everything that the engine sends.
        ask: called when a call wants an engine that sleeps.
        changed: called after the status has changed.
    """

    def __init__(
        self,
        limiter: Limiter,
        key: str = "",
        while_starting: WhileAway = WhileAway.NEXT,
        while_waking: WhileAway = WhileAway.QUEUE,
    ) -> None:
        self.status = EngineStatus()
        self.progress = 0
        self.ask: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None
        self.key = key
        self._limiter = limiter
        self._while_starting = while_starting
        self._while_waking = while_waking
        self._begun = False
        limiter.pause()

    def change(self, while_starting: WhileAway, while_waking: WhileAway) -> None:
        """Let calls that find it away do something else from now on."""
        self._while_starting = while_starting
        self._while_waking = while_waking

    @property
    def ready(self) -> bool:
        """Tell whether calls are taken now."""
        return self.status.state is EngineState.READY

    @property
    def at_call(self) -> bool:
        """Tell whether calls are taken now, or wake it."""
        return self.ready or self._rests

    @property
    def blocked(self) -> bool:
        """Tell whether a plan leaves it out: it is not ready, and no call can change that."""
        if self.at_call:
            return False
        return self._while_starting is WhileAway.NEXT or self.status.state in _NOBODY_WAITS

    @property
    def calls(self) -> int:
        """Calls in the engine, and those that wait for it."""
        return self._limiter.inflight + self._limiter.queued

    def told(self, status: EngineStatus) -> None:
        """Take note of how the engine is; when this returns, no call goes there that may not."""
        self._begun = self._begun or status.state is not EngineState.STOPPED
        before, self.status = self.status, status
        if before.version == status.version:
            return
        if self.ready:
            self._limiter.resume()
        else:
            self._limiter.pause()
        if status.state in _NOBODY_WAITS:
            self._limiter.turn_away(NOT_READY)
        self.changed()

    def forget(self) -> None:
        """The engine is gone; another one like it may come."""
        self._begun = False
        self.status = EngineStatus(version=-1)
        self._limiter.pause()

    def admits(self) -> bool:
        """A call comes: tell whether it may go there or wait, and wake an engine that rests."""
        if self.ready:
            return True
        if self._rests:
            self.ask()
            return self._while_waking is WhileAway.QUEUE
        return not self.blocked

    @property
    def _rests(self) -> bool:
        return self._begun and self.status.state in RESTING
