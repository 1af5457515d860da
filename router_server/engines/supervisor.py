"""One engine: its life, its process, its log, and those who are told of it.

The shell around `lifecycle`: it turns time, checks, ends and calls into events, and does what comes of them.
Refuses to know who the callers are; `desk` brings their reports.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from router_server.core.engine import EngineSpec, EngineState, EngineStatus
from router_server.engines import process
from router_server.engines.lifecycle import Action, Lifecycle
from router_server.engines.log import EngineLog
from router_server.engines.process import EngineProcess
from router_server.engines.stuck import StuckWatch
from router_server.engines.surface import Surface

_TICK: Final = 0.1
"""Seconds between two looks at the clock."""
_START_CHECK: Final = 0.25
"""Seconds between two health checks of an engine that starts."""
_NEWS: Final = 10.0
"""Seconds between two words on a start that lasts."""
_LONGEST_QUOTE: Final = 120

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What a process that makes calls says of one engine.

    Attributes:
        version: of the status that it has heard last; it makes no call that this status forbids.
        calls: those in the engine or waiting for it.
        progress: grows with everything that the engine sends.
    """

    version: int = -1
    calls: int = 0
    progress: int = 0


class Supervisor:
    """Runs one engine until stopped.

    Args:
        name: the provider's.
        spec: what it wants.
        environment: the variables that the process gets beside its own.
        announce: told of the start, in plain words.
    """

    def __init__(
        self, name: str, spec: EngineSpec, environment: Mapping[str, str], announce: Callable[[str], None]
    ) -> None:
        self.name = name
        self._spec = spec
        self._environment = environment
        self._announce = announce
        self._life = Lifecycle(spec.policy, sleeps=spec.sleeps, clock=time.monotonic, jitter=_jitter)
        self._log = EngineLog(name, spec.log)
        self._surface = Surface(spec.socket, spec.policy.check_timeout)
        self._stuck = StuckWatch(spec.policy.stuck_after, time.monotonic)
        self._process: EngineProcess | None = None
        self._reports: dict[object, Report] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = -1
        self._began = self._news_at = 0.0
        self.changed: Callable[[Supervisor], None] = lambda _self: None

    @property
    def key(self) -> str:
        """What tells it apart from every other engine."""
        return self._spec.key

    @property
    def status(self) -> EngineStatus:
        """How the engine is."""
        return self._life.status

    def begin(self) -> None:
        """Start the engine, and watch it from now on."""
        self._do(self._life.begin())
        self._spawn(self._tick())
        self._spawn(self._check())

    def change(self, spec: EngineSpec) -> None:
        """Go by ``spec`` from now on, which describes the same process."""
        self._spec = spec
        self._life.change(spec.policy, sleeps=spec.sleeps)
        self._surface.change(spec.policy.check_timeout)
        self._stuck.limit = spec.policy.stuck_after

    async def retire(self) -> None:
        """Let the calls in the engine end, then the engine; when this returns, no process of it is left."""
        self._do(self._life.retire())
        while self._life.alive:
            self._leave()
            await asyncio.sleep(_TICK)
        await self.stop()

    async def stop(self) -> None:
        """End the engine; when this returns, no process of it is left."""
        self._do(self._life.stop())
        running = self._process
        if running is not None:
            running.end()
            await running.ended()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._surface.close()
        self._log.close()

    def kill(self) -> None:
        """Let `stop` wait for no grace any more."""
        if self._process is not None:
            self._process.kill()

    def want(self) -> None:
        """A call wants the engine."""
        self._do(self._life.want())

    def reported(self, who: object, report: Report) -> None:
        """Take note of what ``who`` says."""
        before = self._reports.get(who, Report())
        self._reports[who] = report
        if report.progress != before.progress:
            self._life.used()
        if self._life.state is EngineState.DROWSY:
            if report.calls:
                self._do(self._life.want())
            else:
                self._ask_to_sleep()

    def joined(self, who: object) -> None:
        """``who`` makes calls from now on."""
        self._reports[who] = Report()

    def left(self, who: object) -> None:
        """``who`` makes no more calls."""
        self._reports.pop(who, None)

    def _ask_to_sleep(self) -> None:
        if self._is_left_alone:
            self._do(self._life.all_agree())

    def _leave(self) -> None:
        if self._is_left_alone:
            self._do(self._life.all_left())

    @property
    def _is_left_alone(self) -> bool:
        """Tell whether all who make calls have heard how it is now, and have none in it."""
        version = self._life.status.version
        return all(report.version == version and not report.calls for report in self._reports.values())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._do(self._life.tick(busy=self._busy))
            if self._life.state is EngineState.DROWSY:
                self._ask_to_sleep()
            self._tell_progress()
            self._tell_time_asleep()

    async def _check(self) -> None:
        policy = self._spec.policy
        while True:
            settled = self._life.state not in {EngineState.STARTING, EngineState.WAKING}
            await asyncio.sleep(policy.check_interval if settled else _START_CHECK)
            if not self._life.alive:
                continue
            version = self._life.status.version
            well = await self._surface.well()
            if self._life.status.version == version:
                self._do(self._life.checked(well=well))
            if self._life.state is EngineState.READY:
                await self._check_for_standstill()

    async def _check_for_standstill(self) -> None:
        load = await self._surface.load() if self._busy or self._stuck.watching else None
        busy = self._busy if load is None else load.requests > 0
        progress = sum(report.progress for report in self._reports.values())
        if self._stuck.seen((progress, load and load.progress), busy=busy):
            self._do(
                self._life.give_up(f"requests in it stood still for {self._spec.policy.stuck_after:g} s")
            )

    @property
    def _busy(self) -> bool:
        return any(report.calls for report in self._reports.values())

    def _do(self, action: Action | None) -> None:
        """Do what an event has led to, and tell everyone where that led."""
        match action:
            case Action.START:
                self._spawn(self._run())
            case Action.END if self._process is not None:
                self._process.end()
            case Action.SLEEP:
                self._spawn(self._sleep())
            case Action.WAKE:
                self._spawn(self._wake())
        if self._life.status.version != self._told:
            self._told = self._life.status.version
            self._say()
            self.changed(self)

    async def _run(self) -> None:
        """Run one process to its end."""
        self._began = self._news_at = time.monotonic()
        self._stuck.reset()
        self._announce(f"{self.name}: starting {self._spec.title}; its log is {self._log.path}")
        try:
            self._process = await process.start(self._spec, self._log, self._environment)
        except OSError as error:
            self._do(self._life.ended(f"it cannot be started: {error.strerror}"))
            return
        if self._life.ending:
            self._process.end()
        how = await self._process.ended()
        self._process = None
        self._do(self._life.ended(how))

    async def _sleep(self) -> None:
        well = await self._surface.sleep(self._spec.policy.start_timeout)
        self._do(self._life.slept(well=well))

    async def _wake(self) -> None:
        well = await self._surface.wake(self._spec.policy.start_timeout)
        self._do(self._life.woke(well=well))

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if self._life.state not in {EngineState.STARTING, EngineState.WAKING} or now - self._news_at < _NEWS:
            return
        self._news_at = now
        said = self._log.last[:_LONGEST_QUOTE]
        self._announce(
            f"{self.name}: loading, {now - self._began:.0f} s so far" + (f": {said}" if said else "")
        )

    def _tell_time_asleep(self) -> None:
        now = time.monotonic()
        if self._life.state in {EngineState.ASLEEP, EngineState.STOPPED} and now - self._news_at >= _NEWS:
            self._news_at = now
            self.changed(self)

    def _say(self) -> None:
        status, life = self.status, self._life
        fields: dict[str, Any] = {"provider": self.name, "state": status.state.value}
        if life.cause:
            recent = "\n".join(self._log.recent)
            fields |= {"cause": life.cause, "waits": round(life.waits, 1), "output": recent}
            _log.warning(
                "The engine %s is %s: %s.", self.name, status.state, life.cause, extra={"fields": fields}
            )
            self._announce(f"{self.name}: {life.cause}; restart in {life.waits:.0f} s")
            return
        _log.info("The engine %s is %s now.", self.name, status.state, extra={"fields": fields})
        if status.state is EngineState.READY and status.start_duration is not None:
            self._announce(f"{self.name}: ready after {status.start_duration:.1f} s")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"engine {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("The supervision of engine %s is broken.", self.name, exc_info=error)


def environment_without(variables: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return ``variables`` without those whose value is among ``secrets``: they are for others."""
    hidden = frozenset(secrets)
    return {name: value for name, value in variables.items() if value not in hidden}


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311 - spreads starts, guards nothing
