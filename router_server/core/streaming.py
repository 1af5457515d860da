"""One streamed call: attempts feed the state machine, the machine's events go to the outbox.

This is where recovery happens: before the commit point another target answers unseen; after it the
call's recovery decides whether the next target starts over, continues, or nobody does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from router_server.core.attempt import Attempt
from router_server.core.call import NOBODY, Call
from router_server.core.errors import Outcome, Phase, Reason, RouterError, UpstreamError
from router_server.core.intake import Intake
from router_server.core.journey import Journey
from router_server.core.outbox import Outbox, ReaderStalledError
from router_server.core.provider import Capability, Take
from router_server.core.race import Race
from router_server.core.reading import Reads
from router_server.core.record import replace
from router_server.core.results import Trail
from router_server.core.stream import StreamMachine, may_resume
from router_server.core.types import ChatRequest, FinishReason, StreamItem, StreamRecovery, Usage
from router_server.core.verdict import deadline_error, interrupted

_CLIENT_ERRORS = range(400, 500)
_MEANS_THE_SAME_ANYWAY = frozenset({401, 402, 403, 408, 425, 429})
"""Statuses that say nothing about the continuation: they would have come without it too."""

_HARMLESS_AT_THE_END = frozenset({Outcome.TIMEOUT, Outcome.UNAVAILABLE})
"""How a stream may break after its finish reason: the answer is whole, only its usage may be missing."""


class Streaming:
    """Runs one streamed call to its end.

    Args:
        call: the call's notebook.
        journey: whom to ask.
        outbox: where the events go.
        recovery: what to do when the stream breaks after the commit point.
        keep_answer: assemble the whole message for the records, where contents are recorded.
    """

    def __init__(
        self,
        call: Call,
        journey: Journey,
        outbox: Outbox,
        recovery: StreamRecovery,
        *,
        keep_answer: bool,
    ) -> None:
        self._call = call
        self._request = cast("ChatRequest", call.request)
        self._journey = journey
        self._outbox = outbox
        self._recovery = recovery
        self._machine = StreamMachine(
            call.start.call_id,
            self._request.model,
            keep_text=recovery is StreamRecovery.RESUME,
        )
        self._keep_answer = keep_answer
        self._running: Attempt | None = None
        self._resuming = False
        self._no_continuation = NOBODY
        self._kept = Usage()
        self._last: Usage | None = None
        self._reason = ""

    async def run(self) -> None:
        """Put every event of the stream into the outbox.

        Raises:
            RouterError: the stream failed, before or after its first delta.
        """
        while True:
            attempt = await self._next()
            self._prepare(attempt)
            # After the commit point there is one answer: nobody runs beside it.
            patience = None if self._machine.committed else self._journey.patience(attempt)
            race = Race(self._journey, attempt, patience)
            try:
                reason = await race.run(partial(self._read, race))
            except UpstreamError as error:
                self._failed(race.leader, error)
            else:
                self._finish(race.leader, reason)
                return

    async def _next(self) -> Attempt:
        self._running = None
        try:
            return await self._journey.next()
        except RouterError as verdict:
            raise self._broken(verdict) from None

    def _prepare(self, attempt: Attempt) -> None:
        self._running = attempt
        self._resuming = self._may_resume(attempt)
        if self._resuming and self._last is not None:
            self._kept += self._last
        if not self._resuming:
            self._kept = Usage()
        self._last = None
        self._machine.begin(resumed=self._resuming, reason=self._reason)

    def _may_resume(self, attempt: Attempt) -> bool:
        return (
            self._machine.committed
            and self._recovery is StreamRecovery.RESUME
            and Capability.CONTINUATION in attempt.target.settings.capabilities
            and attempt.target.name not in self._no_continuation
            and may_resume(self._request, self._machine.text)
        )

    async def _read(self, race: Race, attempt: Attempt) -> FinishReason:
        provider = attempt.target.upstream.provider
        request, continuation = self._continued(attempt) if self._resuming else (self._request, None)
        stream = cast("Reads", provider.stream(attempt.chat(request, continuation)))
        intake = Intake(keep_deltas=self._keep_answer)
        try:
            await attempt.read(stream, partial(self._take, race, attempt, intake))
        except UpstreamError as error:
            if intake.finish_reason is None or error.outcome not in _HARMLESS_AT_THE_END:
                raise self._refusal_of_continuation(error) or error from None
        finally:
            self._measure(attempt, intake)
        return intake.check_finished()

    def _continued(self, attempt: Attempt) -> tuple[ChatRequest, str]:
        generation = self._request.generation
        limit = attempt.target.settings.output_limit(generation)
        if limit is not None:
            limit = max(1, limit - self._kept_tokens())
        request = replace(self._request, generation=replace(generation, max_output_tokens=limit))
        return request, self._machine.text

    def _kept_tokens(self) -> int:
        return self._kept.output_tokens or self._machine.delivered_tokens

    async def _take(
        self, race: Race, attempt: Attempt, intake: Intake, items: Sequence[StreamItem]
    ) -> Take | None:
        deltas = intake.take(items)
        attempt.measures.finish_reason = intake.finish_reason
        if race.winner is not attempt:
            if not deltas:
                return None
            await race.won(attempt)
            self._running = attempt
        if intake.reported_model:
            self._call.answering(attempt.target, intake.reported_model)
        if deltas and self._call.first_delta_at is None:
            self._call.first_delta_at = self._call.clock()
        if not self._outbox.add(self._machine.take(deltas, self._trail)):
            await self._until_there_is_room()
        return partial(self._take_at_once, attempt, intake)

    def _take_at_once(self, attempt: Attempt, intake: Intake, items: Sequence[StreamItem]) -> bool:
        deltas = intake.take(items)
        attempt.measures.finish_reason = intake.finish_reason
        return self._outbox.add(self._machine.take(deltas, self._trail))

    async def _until_there_is_room(self) -> None:
        try:
            await self._outbox.room(self._call.time_left())
        except ReaderStalledError:
            raise UpstreamError(Outcome.CANCELLED, "reader_stalled") from None
        except TimeoutError:
            if self._call.time_left() <= 0:
                raise UpstreamError(Outcome.TIMEOUT, "deadline", phase=Phase.STREAM, blameless=True) from None
            # The deadline has moved while it waited.
            if self._outbox.full:
                await self._until_there_is_room()

    def _measure(self, attempt: Attempt, intake: Intake) -> None:
        measures = attempt.measures
        measures.reported_model = intake.reported_model
        measures.finish_reason = intake.finish_reason
        measures.answer = intake.answer
        measures.engine = intake.engine
        if intake.usage is not None:
            measures.usage = intake.usage
        elif measures.first_token_at is not None:
            measures.usage = Usage(self._call.prompt_tokens, intake.tokens, estimated=True)

    def _refusal_of_continuation(self, error: UpstreamError) -> UpstreamError | None:
        status = error.status
        if not self._resuming or status not in _CLIENT_ERRORS or status in _MEANS_THE_SAME_ANYWAY:
            return None
        return UpstreamError(Outcome.INVALID_REQUEST, "continuation_refused", status=status)

    def _failed(self, attempt: Attempt, error: UpstreamError) -> None:
        self._last = attempt.measures.usage
        self._reason = error.outcome.value
        if self._resuming and error.reason == "continuation_refused":
            self._no_continuation |= {attempt.target.name}
            self._journey.again(attempt)
            return
        committed = self._machine.committed
        self._journey.failed(attempt, error, midway=committed)
        if committed and self._recovery is StreamRecovery.NONE:
            raise self._broken(self._journey.verdict(), error.reason)

    def _finish(self, attempt: Attempt, reason: FinishReason) -> None:
        self._running = None
        usage = attempt.usage or attempt.priced(Usage())
        self._call.usage = self._kept + usage if self._resuming else usage
        self._call.answering(attempt.target, attempt.measures.reported_model)
        self._outbox.add(self._machine.end(reason, self._call.usage, self._trail))

    def _broken(self, verdict: RouterError, why: str = "") -> RouterError:
        # What a unary caller would be told is not the whole truth once a delta was delivered.
        if not self._machine.committed or verdict.reason is Reason.CONTENT_FILTERED:
            return verdict
        if verdict.reason is Reason.DEADLINE_EXCEEDED or self._journey.out_of_time:
            return deadline_error(Phase.STREAM)
        error = verdict
        if verdict.reason is not Reason.STREAM_INTERRUPTED:
            error = interrupted(why or self._reason, self._recovery)
        error.usage = self._call.billed()
        return error

    def _trail(self) -> Trail:
        return self._call.trail(self._running.summary() if self._running is not None else None)
