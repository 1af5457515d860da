"""What a routed call gives its caller: results, the events of a stream, the trail of attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from router_server.core.errors import AttemptSummary
from router_server.core.observer import CallRecord
from router_server.core.principal import Principal
from router_server.core.quotas import Standing
from router_server.core.record import record
from router_server.core.types import Answer, Delta, FinishReason, Operation, Usage, Vectors


@record(frozen=True, slots=True)
class Trail:
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


@record(frozen=True, slots=True)
class ChatResult:
    """A whole answer. ``model`` is the route as the caller named it."""

    call_id: str
    model: str
    answer: Answer
    usage: Usage
    trail: Trail


@record(frozen=True, slots=True)
class EmbedResult:
    """One vector per input, in order."""

    call_id: str
    model: str
    vectors: Vectors
    usage: Usage
    trail: Trail


@record(frozen=True, slots=True)
class Started:
    """The first event: sent together with the first delta."""

    call_id: str
    model: str
    trail: Trail


@record(frozen=True, slots=True)
class Reset:
    """The stream goes on with another target; ``resumed`` False means: forget every delta so far."""

    reason: str
    trail: Trail
    resumed: bool


@record(frozen=True, slots=True)
class Finished:
    """The last event: the answer is complete."""

    finish_reason: FinishReason
    usage: Usage
    trail: Trail


@record(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while, and the call is alive."""


StreamEvent = Started | Delta | Reset | Finished | Heartbeat


@record(frozen=True, slots=True)
class ModelInfo:
    """A route as its callers see it."""

    name: str
    operations: tuple[Operation, ...]
    targets: tuple[str, ...]
    available: bool


def _unheard(_standing: Standing) -> None:
    """Nobody asks."""


@record(frozen=True, slots=True)
class Invocation:
    """What the edge knows of one call: its id, and the seconds the caller gives it (None: no deadline).

    Attributes:
        principal: who calls, None where nobody asks who it is.
        stands: told how far the caller's limits are used, where there are any.
        ended: told of the call when it is over, if it was routed at all.
    """

    call_id: str
    timeout: float | None = None
    principal: Principal | None = None
    stands: Callable[[Standing], None] = field(default=_unheard, repr=False)
    ended: Callable[[CallRecord], None] | None = field(default=None, repr=False)
