"""What a routed call gives its caller: results, the events of a stream, the trail of attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from router_server.core.deadline import Deadline
from router_server.core.errors import AttemptSummary
from router_server.core.observer import CallRecord
from router_server.core.principal import Principal
from router_server.core.quotas import Standing
from router_server.core.record import Record
from router_server.core.types import Answer, Delta, FinishReason, Operation, Usage, Vectors


class Trail(Record, frozen=True):
    """Who answered, and who was tried before; the attempt that answers is last."""

    route: str
    target: str
    provider: str
    upstream_model: str
    attempts: tuple[AttemptSummary, ...] = ()
    cache_hit: bool = False
    reported_model: str = ""
    fallback: bool = False
    """True where the target that answered is not the plan's first: callers are told in a trailer."""


class ChatResult(Record, frozen=True):
    """A whole answer. ``model`` is the route as the caller named it."""

    call_id: str
    model: str
    answer: Answer
    usage: Usage
    trail: Trail


class EmbedResult(Record, frozen=True):
    """One vector per input, in order."""

    call_id: str
    model: str
    vectors: Vectors
    usage: Usage
    trail: Trail


class Started(Record, frozen=True):
    """The first event: sent together with the first delta."""

    call_id: str
    model: str
    trail: Trail


class Reset(Record, frozen=True):
    """The stream goes on with another target; ``resumed`` False means: forget every delta so far."""

    reason: str
    trail: Trail
    resumed: bool


class Finished(Record, frozen=True):
    """The last event: the answer is complete."""

    finish_reason: FinishReason
    usage: Usage
    trail: Trail


class Heartbeat(Record, frozen=True):
    """Nothing happened for a while, and the call is alive."""


StreamEvent = Started | Delta | Reset | Finished | Heartbeat

Give = Callable[[StreamEvent], bool]
"""Takes one event the moment that it is here; tells whether it did. Else it is yielded, as ever."""


class ModelInfo(Record, frozen=True):
    """A route as its callers see it."""

    name: str
    operations: tuple[Operation, ...]
    targets: tuple[str, ...]
    available: bool


def _unheard(_standing: Standing) -> None:
    """Nobody asks."""


class Invocation(Record, frozen=True):
    """What the edge knows of one call: its id, and the seconds the caller gives it (None: no deadline).

    Attributes:
        principal: who calls, None where nobody asks who it is.
        stands: told how far the caller's limits are used, where there are any.
        ended: told of the call when it is over, if it was routed at all.
        lasts: told of a task that goes on with the call for others, when its caller may be gone.
        deadline: of the call, where others than its caller may move it; None: that of ``timeout``.
    """

    unsaid: ClassVar[frozenset[str]] = frozenset({"stands", "ended", "lasts"})

    call_id: str
    timeout: float | None = None
    principal: Principal | None = None
    stands: Callable[[Standing], None] = _unheard
    ended: Callable[[CallRecord], None] | None = None
    lasts: Callable[[asyncio.Task[None]], None] | None = None
    deadline: Deadline | None = None
