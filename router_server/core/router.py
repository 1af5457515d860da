"""The router: a call comes in, a plan is made, attempts are run, a result or one error goes out.

Composition of the other parts of the core, and the only one of them that the edges call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from router_server.core.allocation import Allocation
from router_server.core.attempt import Attempt
from router_server.core.budget import Budget
from router_server.core.call import Call, CallKind
from router_server.core.checks import Checks
from router_server.core.embedding import embed_all
from router_server.core.errors import Reason, RouterError, UpstreamError, Violation
from router_server.core.funds import Funds, Ledger
from router_server.core.journey import Journey
from router_server.core.needs import needs_of
from router_server.core.observer import Observer
from router_server.core.outbox import Outbox
from router_server.core.plan import Plan, Strategy, make_plan
from router_server.core.provider import Capability
from router_server.core.race import Race, paid
from router_server.core.results import (
    ChatResult,
    EmbedResult,
    Give,
    Heartbeat,
    Invocation,
    ModelInfo,
    StreamEvent,
)
from router_server.core.route import Destination, Route
from router_server.core.streaming import Streaming
from router_server.core.types import (
    Answer,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    Operation,
    Usage,
)

A = TypeVar("A", Answer, Embeddings)

_DIRECT = "direct"
"""The route's name in telemetry where the caller named a provider and a model: label values are bounded."""

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What the router is told beside its routes; times in seconds.

    Attributes:
        unary_deadline: for a unary call whose caller gives none.
        stream_deadline: for a stream whose caller gives none.
        reader_stall: a stream whose reader takes nothing for this long is given up.
        keep_answers: hand whole answers to the observers, for those who record contents.
    """

    unary_deadline: float = 120.0
    stream_deadline: float = 600.0
    reader_stall: float = 60.0
    keep_answers: bool = False


def no_direct(_provider: str, _model: str) -> Destination | None:
    """Return None: callers may name routes only."""
    return None


class Router:
    """Routes calls.

    Args:
        routes: by name.
        checks: told of targets that deserve a check at once.
        observer: sees every call.
        clock: monotonic seconds, the same clock as the event loop's.
        settings: deadlines and the like.
        direct: gives the target for ``provider/model`` where callers may name one, else None.
        ledger: where budgets are kept; None where nothing has one.
        addressable: tells whether callers may have options for what is called so: a provider, or a kind.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        checks: Checks,
        observer: Observer,
        *,
        clock: Callable[[], float],
        settings: RouterSettings | None = None,
        direct: Callable[[str, str], Destination | None] = no_direct,
        ledger: Ledger | None = None,
        addressable: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self._listed = sorted(routes, key=lambda route: route.name)
        self._routes: Mapping[str, Route] = {
            n: route for route in routes for n in (route.name, *route.aliases)
        }
        self._check_soon = checks.soon
        self._settings = settings = settings or RouterSettings()
        unary, stream = settings.unary_deadline, settings.stream_deadline
        self._chats = CallKind(Operation.CHAT, unary, observer, clock)
        self._streams = CallKind(Operation.STREAM, stream, observer, clock)
        self._embeds = CallKind(Operation.EMBED, unary, observer, clock)
        self._direct = direct
        self._ledger = ledger
        self._addressable = addressable

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return one whole answer.

        Raises:
            RouterError: what the caller is told.
        """
        route = self._route(request.model)

        async def work(attempt: Attempt) -> Answer:
            provider = attempt.target.upstream.provider
            answer = await attempt.within_unary(provider.chat(attempt.chat(request)))
            attempt.measures.answered(answer, call.prompt_tokens)
            return answer

        call = self._call(self._chats, route, request, invocation)
        answer, usage = await self._first_answer(call, route, work)
        return ChatResult(invocation.call_id, request.model, answer, usage, call.trail())

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input, all or nothing.

        Raises:
            RouterError: what the caller is told.
        """
        route = self._route(request.model)

        async def work(attempt: Attempt) -> Embeddings:
            provider = attempt.target.upstream.provider
            answer = await attempt.within_unary(embed_all(provider, attempt.embed(request)))
            attempt.measures.usage = answer.usage or Usage(call.prompt_tokens, estimated=True)
            attempt.measures.reported_model = answer.reported_model
            return answer

        call = self._call(self._embeds, route, request, invocation)
        answer, usage = await self._first_answer(call, route, work)
        return EmbedResult(invocation.call_id, request.model, answer.vectors, usage, call.trail())

    async def stream(
        self, request: ChatRequest, invocation: Invocation
    ) -> AsyncGenerator[StreamEvent, Give | None]:
        """Yield the events of one streamed answer; closing the generator ends the call.

        Events are given to a `Give` only where nothing is asked for that has to do with time.

        Raises:
            RouterError: what the caller is told, before or after the first event.
        """
        route = self._route(request.model)
        call = self._call(self._streams, route, request, invocation)
        outbox = Outbox(self._settings.reader_stall)
        pump = asyncio.create_task(
            self._pump(call, route, request, outbox), name=f"stream {invocation.call_id}"
        )
        heartbeat, window = None, request.routing.coalesce_window
        give: Give | None = None
        try:
            while True:
                if heartbeat is None:
                    await outbox.hand_over(None if window > 0 else give)
                elif not await outbox.wait(heartbeat):
                    yield Heartbeat()
                    continue
                if window > 0:
                    await outbox.linger(window)
                events = outbox.take()
                if not events:
                    return
                heartbeat = request.routing.heartbeat_interval
                for event in events:
                    give = yield event
        finally:
            pump.cancel()
            try:
                await asyncio.wait({pump})
            finally:
                # Whoever closes this may be cancelled meanwhile: a refused write comes before the news that
                # the caller is gone.
                outbox.discard()

    def canonical(self, model: str) -> str:
        """Return the own name of the route that is called ``model``; that again where there is none."""
        route = self._routes.get(model)
        return model if route is None else route.name

    def shown(self, model: str) -> str:
        """Return the name in telemetry of what is called ``model``: a route's own, or ``direct``."""
        route = self._routes.get(model)
        return _DIRECT if route is None else route.name

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes as callers see them, by name."""
        return tuple(_model_info(route) for route in self._listed)

    async def _pump(self, call: Call, route: Route, request: ChatRequest, outbox: Outbox) -> None:
        recovery = request.routing.stream_recovery or route.stream_recovery
        try:
            plan = await _allotted_plan(call, route) if route.allocation else _plan(call, route)
            journey = Journey(call, route, plan, self._check_soon)
            streaming = Streaming(call, journey, outbox, recovery, keep_answer=self._settings.keep_answers)
            await streaming.run()
        except BaseException as error:
            call.ended(error)
            if not isinstance(error, Exception):
                raise
            outbox.close(error)  # the reader raises it where it is seen
        else:
            call.ended()
            outbox.close()

    async def _first_answer(
        self, call: Call, route: Route, work: Callable[[Attempt], Awaitable[A]]
    ) -> tuple[A, Usage]:
        try:
            plan = await _allotted_plan(call, route) if route.allocation else _plan(call, route)
            journey = Journey(call, route, plan, self._check_soon)
            while True:
                attempt = await journey.next()
                race = None if route.hedging is None else Race(journey, attempt, journey.patience(attempt))
                try:
                    answer = await (paid(attempt, work) if race is None else race.run(work))
                    break
                except UpstreamError as error:
                    journey.failed(attempt if race is None else race.leader, error)
            winner = attempt if race is None else race.leader
            call.reported_model = answer.reported_model
            call.usage = usage = winner.usage or winner.priced(Usage())
        except BaseException as error:
            call.ended(error)
            raise
        call.ended()
        return answer, usage

    def _call(
        self, kind: CallKind, route: Route, request: ChatRequest | EmbedRequest, invocation: Invocation
    ) -> Call:
        if request.provider_options:
            self._check_options(request.provider_options, route)
        arm = route.experiment.arm(request) if route.experiment else ""
        call = Call(kind, invocation, route.name, request, arm)
        if self._ledger is not None:
            call.funds = _funds(self._ledger, route, invocation)
        return call

    def _check_options(self, options: Collection[str], route: Route) -> None:
        strangers = [name for name in options if not self._addressable(name)]
        if strangers:
            known = ", ".join(sorted(set(route.providers.values())))
            raise RouterError(
                Reason.INVALID_REQUEST,
                "provider_options_json names what is neither a provider nor a kind of provider.",
                violations=tuple(
                    Violation(
                        f"provider_options_json[{name[:_LONGEST_NAME]}]",
                        f"nothing is called that here; the providers of this route are: {known}",
                    )
                    for name in strangers
                ),
            )

    def _route(self, model: str) -> Route:
        route = self._routes.get(model)
        if route is not None:
            return route
        provider, slash, name = model.partition("/")
        target = self._direct(provider, name) if slash and name else None
        if target is None:
            raise RouterError(
                Reason.MODEL_NOT_FOUND,
                "No route has the name that was given in model. ListModels tells which there are.",
                metadata={"model": model[:_LONGEST_NAME]},
            )
        return Route(_DIRECT, (target,))


def _funds(ledger: Ledger, route: Route, invocation: Invocation) -> Funds:
    principal = invocation.principal
    budgets = [] if route.budget is None else [route.budget]
    if principal is not None and principal.budget is not None:
        budgets.append(Budget(principal.subject, principal.budget))
    return Funds(ledger, budgets)


async def _allotted_plan(call: Call, route: Route) -> Plan:
    allocation = cast("Allocation", route.allocation)
    for _ in range(2):
        allotment = await allocation.recall(call.request)
        if allotment is None:
            break
        plan = _plan(call, route, allotment)
        if await allocation.keep(allotment):
            return plan
        # Another call of this user was allotted a target in this very moment: take the same.
    return _plan(call, route)


def _plan(call: Call, route: Route, strategy: Strategy | None = None) -> Plan:
    strategy = strategy or route.strategy
    if route.experiment is not None and call.start.arm:
        strategy = route.experiment.strategy(call.start.arm, strategy)
    return make_plan(route.targets, needs_of(call.request), call, strategy)


def _model_info(route: Route) -> ModelInfo:
    able = {capability for target in route.targets for capability in target.settings.capabilities}
    chat = (Operation.CHAT, Operation.STREAM) if Capability.CHAT in able else ()
    embed = (Operation.EMBED,) if Capability.EMBED in able else ()
    return ModelInfo(
        name=route.name,
        operations=chat + embed,
        targets=tuple(target.configured for target in route.targets),
        available=any(target.available for target in route.targets),
    )
