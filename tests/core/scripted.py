"""A provider that does what a test tells it, and a router around it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from router_server.core.adaptive import Adaptive
from router_server.core.breaker import BreakerSettings
from router_server.core.checks import Checks
from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, UpstreamError
from router_server.core.hedge import Hedging
from router_server.core.limiter import Limiter, Limits
from router_server.core.observer import (
    AttemptRecord,
    AttemptStart,
    CallRecord,
    CallStart,
    Failover,
)
from router_server.core.provider import Capability, UpstreamChat, UpstreamEmbed
from router_server.core.results import Invocation, StreamEvent
from router_server.core.rota import Rota
from router_server.core.route import Route
from router_server.core.router import Router, RouterSettings
from router_server.core.target import HealthCheck, Target, TargetSettings, Upstream
from router_server.core.types import (
    Answer,
    ChatRequest,
    Delta,
    DeltaKind,
    Embeddings,
    Finish,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    StreamRecovery,
    Text,
    Usage,
)

Act = float | BaseException | Sequence[StreamItem]
"""A pause in seconds, a failure, or what one read brings."""

ALL = frozenset(Capability)


def said(text: str, part: int = 0, kind: DeltaKind = DeltaKind.TEXT) -> tuple[StreamItem, ...]:
    return (Delta(part, kind, text),)


def done(usage: Usage | None = None, reason: FinishReason = FinishReason.STOP) -> tuple[StreamItem, ...]:
    return (Finish(reason), Report(usage))


def fails(outcome: Outcome, reason: str = "scripted", **more: object) -> UpstreamError:
    return UpstreamError(outcome, reason, **more)  # type: ignore[arg-type]


@dataclass
class ScriptedProvider:
    """Plays one script per call, the last one for ever."""

    scripts: list[Sequence[Act]] = field(default_factory=lambda: [[said("hello"), done(Usage(3, 2))]])
    max_embed_batch: int = 3
    check_answers: list[bool | None] = field(default_factory=lambda: [None])
    address: tuple[str, int | None] = ("scripted", 1)
    calls: list[UpstreamChat] = field(default_factory=list)
    embeds: list[UpstreamEmbed] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    open: int = 0
    checks: int = 0
    embedder: Callable[[UpstreamEmbed], Embeddings] | None = None

    def _script(self) -> Sequence[Act]:
        self.times.append(asyncio.get_running_loop().time())
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    async def chat(self, call: UpstreamChat) -> Answer:
        text, usage, reason = "", None, FinishReason.STOP
        async for items in self.stream(call):
            for item in items:
                if isinstance(item, Delta):
                    text += item.text
                elif isinstance(item, Finish):
                    reason = item.reason
                else:
                    usage = item.usage or usage
        return Answer(Message(Role.ASSISTANT, (Text(text),)), reason, usage, "scripted-1")

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], None]:
        self.calls.append(call)
        script = self._script()
        self.open += 1
        try:
            for act in script:
                if isinstance(act, BaseException):
                    raise act
                if isinstance(act, int | float):
                    await asyncio.sleep(act)
                else:
                    yield act
        finally:
            self.open -= 1

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        self.embeds.append(call)
        for act in self._script():
            if isinstance(act, BaseException):
                raise act
            if isinstance(act, int | float):
                await asyncio.sleep(act)
        assert self.embedder is not None
        return self.embedder(call)

    async def check(self) -> bool | None:
        self.checks += 1
        return self.check_answers.pop(0) if len(self.check_answers) > 1 else self.check_answers[0]

    async def close(self) -> None:
        return


@dataclass
class Recorder:
    """An observer that keeps the records."""

    starts: list[CallStart] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)
    breakers: list[tuple[str, str, str]] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=lambda: {"traceparent": "00-1"})

    def call(self, start: CallStart) -> Recorder:
        self.starts.append(start)
        return self

    def attempt(self, start: AttemptStart) -> Recorder:
        assert start.number >= 1
        return self

    def failed_over(self, failover: Failover) -> None:
        self.failovers.append(failover)

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        if isinstance(record, CallRecord):
            self.calls.append(record)
        else:
            self.attempts.append(record)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:  # noqa: ARG002 - the protocol names it
        self.breakers.append((target, before, after))


@dataclass
class Rig:
    """A router over scripted providers; target ``a`` is provider ``a``'s only model, and so on."""

    providers: dict[str, ScriptedProvider]
    router: Router
    targets: dict[str, Target]
    upstreams: dict[str, Upstream]
    recorder: Recorder
    checks: Checks

    def state(self, target: str) -> str:
        """The state of a target's breaker."""
        return str(self.targets[target].breaker.state)

    @property
    def idle(self) -> bool:
        """Nothing is held: no permit, no gate, no queue place, no upstream stream."""
        return (
            all(u.limiter.inflight == 0 and u.limiter.queued == 0 for u in self.upstreams.values())
            and all(t.gate.inflight == 0 and t.gate.queued == 0 for t in self.targets.values())
            and all(p.open == 0 for p in self.providers.values())
        )


def rig(
    *scripts: Sequence[Sequence[Act]],
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    retries: int = 1,
    breaker: BreakerSettings | None = None,
    recovery: StreamRecovery = StreamRecovery.NONE,
    overrides: Mapping[str, TargetSettings] | None = None,
    check: HealthCheck | None = None,
    settings: RouterSettings | None = None,
    hedging: Hedging | None = None,
    adaptive: int | None = None,
    rota: Rota | None = None,
) -> Rig:
    """Build a router whose route ``r`` has one target per list of scripts: a, b, c…"""
    clock = asyncio.get_running_loop().time
    recorder = Recorder()
    names = "abcdefgh"[: len(scripts)]
    providers = {n: ScriptedProvider(scripts=list(s)) for n, s in zip(names, scripts, strict=True)}
    upstreams = {
        n: Upstream(n, "scripted", p, Limiter(limits or Limits(), clock), retries=retries, check=check)
        for n, p in providers.items()
    }
    for upstream in upstreams.values():
        if adaptive is not None:
            upstream.adaptive = Adaptive(upstream.limiter, adaptive, clock)
    targets = {
        n: Target(
            replace(
                (overrides or {}).get(n, TargetSettings(n, f"model-{n}", ALL)),
                timeouts=timeouts or Timeouts(),
                breaker=breaker or BreakerSettings(),
            ),
            upstreams[n],
            clock,
            jitter=lambda: 1.0,
            on_change=lambda t, b, a: recorder.breaker_changed(t.name, t.upstream.name, b, a),
        )
        for n in names
    }
    checks = Checks(list(upstreams.values()), lambda u: [targets[u.name]], lambda: None, rota)
    router = Router(
        [Route("r", tuple(targets.values()), stream_recovery=recovery, hedging=hedging)],
        checks,
        recorder,
        clock=clock,
        settings=settings,
    )
    return Rig(providers, router, targets, upstreams, recorder, checks)


def ask(text: str = "hi there", **more: object) -> ChatRequest:
    return ChatRequest("r", (Message(Role.USER, (Text(text),)),), **more)  # type: ignore[arg-type]


def invocation(timeout: float | None = None) -> Invocation:
    return Invocation("call-1", timeout)


async def collect(stream: AsyncGenerator[StreamEvent, None]) -> list[StreamEvent]:
    return [event async for event in stream]
