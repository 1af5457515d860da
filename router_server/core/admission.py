"""The door before the router: whoever may not name a route, or has used what it may, does not reach it.

Made only where callers are known or limited; where they are not, calls go to the router itself. Tokens are
reserved from an estimate before a call, and settled when it is over, however it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.needs import estimate_prompt, longest_answer
from router_server.core.observer import CallRecord
from router_server.core.principal import Principal, Quota
from router_server.core.quotas import QuotaExceededError, Quotas, Reservation, Standing, Subject, refusal
from router_server.core.record import replace
from router_server.core.results import ChatResult, EmbedResult, Invocation, ModelInfo, StreamEvent
from router_server.core.service import CallRouter
from router_server.core.shared import be_patient_once
from router_server.core.types import ChatRequest, EmbedRequest

_NAME = 32
"""Hexadecimal digits that stand for a user, whose id is not kept."""

_SLACK = 5.0
"""Seconds after the call's deadline when its place is free again, although nobody gave it back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be used, beside what a principal's own quota says.

    Attributes:
        caller: of a principal that has none of its own; None: any amount.
        user: of each user that a caller names.
        routes: of routes, by name.
        longest_answers: of routes, by name: tokens that any of its targets may answer with; None: any number.
        longest_call: seconds that a call may take whose caller gives no deadline.
    """

    caller: Quota | None = None
    user: Quota | None = None
    routes: Mapping[str, Quota] = field(default_factory=dict)
    longest_answers: Mapping[str, int | None] = field(default_factory=dict)
    longest_call: float = 600.0


@dataclass(eq=False, slots=True)
class _Tab:
    """What one call has taken and used; settled once its caller is gone and nothing of it runs for others."""

    reservation: Reservation
    stands: Callable[[Standing], None]
    records: list[CallRecord] = field(default_factory=list)
    open: int = 1

    def lasts(self, task: asyncio.Task[None]) -> None:
        """The call goes on until ``task`` ends."""
        self.open += 1
        task.add_done_callback(self.leave)

    def leave(self, _task: asyncio.Task[None] | None = None) -> None:
        """One of those has ended for which it is open."""
        self.open -= 1
        if not self.open:
            requests, tokens = _used(self.records)
            if not requests and self.reservation.given_back is not None:
                self.stands(self.reservation.given_back)
            self.reservation.settle(requests=requests, tokens=tokens)


class Admission:
    """Lets calls through to a router.

    Args:
        router: answers them.
        canonical: gives a route's own name for whatever callers may name it, or that again.
        quotas: counts what is used.
        limits: how much that may be.
        authenticated: refuse whoever is not known, whichever edge the call came by.
    """

    def __init__(
        self,
        router: CallRouter,
        canonical: Callable[[str], str],
        quotas: Quotas,
        limits: Limits,
        *,
        authenticated: bool,
    ) -> None:
        self._router = router
        self._canonical = canonical
        self._quotas = quotas
        self._limits = limits
        self._authenticated = authenticated

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return the whole answer.

        Raises:
            RouterError: what the caller is told.
        """
        async with self._admitted(request, invocation) as admitted:
            return await self._router.chat(request, admitted)

    async def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one streamed answer; closing the generator ends the call.

        Raises:
            RouterError: what the caller is told, before or after the first event.
        """
        async with (
            self._admitted(request, invocation) as admitted,
            aclosing(self._router.stream(request, admitted)) as events,
        ):
            async for event in events:
                yield event

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input, all or nothing.

        Raises:
            RouterError: what the caller is told.
        """
        async with self._admitted(request, invocation) as admitted:
            return await self._router.embed(request, admitted)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return every route; who may name which is the caller's own matter."""
        return self._router.models()

    @asynccontextmanager
    async def _admitted(
        self, request: ChatRequest | EmbedRequest, invocation: Invocation
    ) -> AsyncIterator[Invocation]:
        route = self._canonical(request.model)
        self._check(route, invocation.principal)
        be_patient_once()
        subjects = tuple(self._subjects(route, request.user_id, invocation.principal))
        if not subjects:
            yield invocation
            return
        prompt = estimate_prompt(request)
        tokens = prompt + longest_answer(request, self._limits.longest_answers.get(route))
        tab = _Tab(await self._reserve(subjects, prompt, tokens, invocation), invocation.stands)
        try:
            yield replace(invocation, ended=tab.records.append, lasts=tab.lasts)
        finally:
            tab.leave()

    def _check(self, route: str, principal: Principal | None) -> None:
        if principal is None:
            if self._authenticated:
                raise RouterError(
                    Reason.UNAUTHENTICATED,
                    "This router serves known callers only, and nobody asked here who calls. "
                    "Call where that is asked, at its gRPC port, and show a key, token or certificate.",
                    metadata={"problem": "missing"},
                )
            return
        if not principal.may_call(route):
            raise RouterError(
                Reason.PERMISSION_DENIED,
                "This caller may not use the route that was given in model. ListModels tells which it may.",
                metadata={"principal": principal.subject},
            )

    def _subjects(self, route: str, user: str, principal: Principal | None) -> Iterator[Subject]:
        limits = self._limits
        whose = "" if principal is None else principal.subject
        caller = None if principal is None else principal.quota or limits.caller
        if caller:
            yield Subject("caller", whose, caller)
        if limits.user and user:
            yield Subject("user", sha256(f"{whose}\0{user}".encode()).hexdigest()[:_NAME], limits.user)
        if quota := limits.routes.get(route):
            yield Subject("route", route, quota)

    async def _reserve(
        self, subjects: tuple[Subject, ...], prompt: int, tokens: int, invocation: Invocation
    ) -> Reservation:
        timeout = self._limits.longest_call if invocation.timeout is None else invocation.timeout
        try:
            reservation = await self._quotas.reserve(
                subjects, prompt=prompt, tokens=tokens, life=timeout + _SLACK
            )
        except QuotaExceededError as error:
            invocation.stands(error.standing)
            raise refusal(error) from None
        if reservation.standing is not None:
            invocation.stands(reservation.standing)
        return reservation


def _used(records: list[CallRecord]) -> tuple[int, int]:
    """Return the requests and tokens that a call used: none where no target was asked.

    Every attempt counts, also those that failed, were cancelled or lost a race: the upstream counts them too.
    """
    attempts = [one for record in records for one in record.attempts]
    asked = [one for one in attempts if one.outcome not in {Outcome.SATURATED, Outcome.CIRCUIT_OPEN}]
    return int(bool(asked)), sum(one.usage.tokens for one in asked if one.usage is not None)
