"""An engine: an upstream that runs as a process of ours, as far as its provider and its callers know it.

What a provider kind says of the process it wants (`EngineSpec`), and how that process is (`EngineStatus`).
A leaf. Refuses to know how processes are started, watched and ended: `engines` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class EngineState(StrEnum):
    """Where an engine is in its life; calls are taken when it is READY."""

    STOPPED = "stopped"
    """There is no process: not begun yet, ended with the router, or idle for so long that it was stopped."""
    STARTING = "starting"
    READY = "ready"
    DROWSY = "drowsy"
    """Idle for long: it takes no more calls, and sleeps as soon as everyone who could call agrees."""
    ASLEEP = "asleep"
    """The process lives, without what a model holds of the machine."""
    WAKING = "waking"
    BACKING_OFF = "backing_off"
    """It died or was given up, and is started again when its time has come."""
    FAILED = "failed"
    """The same, after so many failures in a row that nobody should wait for it."""
    LEAVING = "leaving"
    """The configuration wants it no more: it takes no more calls, and ends with the last one in it."""


RESTING = frozenset({EngineState.STOPPED, EngineState.DROWSY, EngineState.ASLEEP, EngineState.WAKING})
"""States that a call ends, or has ended already."""


class WhileAway(StrEnum):
    """What a call does that finds the engine not ready."""

    QUEUE = "queue"
    """It waits in the queue, as long as its deadline allows."""
    NEXT = "next"
    """It goes to the next target of its route at once."""


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """When an engine is given up, restarted, put to sleep; times in seconds.

    Attributes:
        start_timeout: from the start, or the call that wakes it, until it must be ready.
        stop_grace: from the request to end until it is killed.
        check_interval: from one health check to the next while it is ready.
        check_timeout: of one health check.
        check_failures: failed checks in a row after which it is restarted.
        stuck_after: with requests in it and no progress of any kind for so long it is restarted; None: never.
        backoff: before the first restart, doubling with every further failure.
        backoff_max: the longest; an engine that was ready for so long starts afresh at ``backoff``.
        hopeless_after: failures in a row from which on it counts as FAILED. It is still tried again.
        idle_sleep: without calls for so long it is put to sleep, or stopped; None: never.
    """

    start_timeout: float = 600.0
    stop_grace: float = 15.0
    check_interval: float = 5.0
    check_timeout: float = 5.0
    check_failures: int = 3
    stuck_after: float | None = 120.0
    backoff: float = 1.0
    backoff_max: float = 60.0
    hopeless_after: int = 5
    idle_sleep: float | None = None


@dataclass(frozen=True, slots=True)
class EngineLogFile:
    """Where an engine's output is kept: ``files`` older files beside the current one, bytes each."""

    folder: Path
    max_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The process that a provider wants.

    Attributes:
        title: what is started, in words for people.
        command: program and arguments; it must listen on ``socket``.
        env: added to the router's own environment; may hold secrets.
        without: variables of the router's environment that the process must not see.
        socket: the path of the Unix socket on which it serves HTTP: ``/health``, and what `engines.surface`
            lists besides.
        sleeps: whether it can give back what it holds without ending (``/sleep`` and ``/wake_up``).
        policy: when it is given up, restarted, put to sleep.
        log: where its output is kept.
        while_starting: what calls do while it starts, or waits to be started again.
        while_waking: what calls do while it sleeps, or wakes because of them.
    """

    title: str
    command: tuple[str, ...]
    socket: str
    log: EngineLogFile
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    without: frozenset[str] = frozenset()
    sleeps: bool = False
    policy: EnginePolicy = field(default_factory=EnginePolicy)
    while_starting: WhileAway = WhileAway.NEXT
    while_waking: WhileAway = WhileAway.QUEUE

    @property
    def key(self) -> str:
        """What tells the process apart from all others that this router has run, and will."""
        return Path(self.socket).stem


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine at one moment.

    Attributes:
        state: where it is.
        version: counts the changes of ``state``.
        restarts: starts because it had died or was given up.
        wakes: how often a call woke it.
        asleep: seconds it spent asleep or stopped for want of calls, until the last change.
        start_duration: seconds from its last start or waking until it was ready; None: it never was.
    """

    state: EngineState = EngineState.STOPPED
    version: int = 0
    restarts: int = 0
    wakes: int = 0
    asleep: float = 0.0
    start_duration: float | None = None
