# ruff: noqa: N818 - the names are those of the router's reasons; "InvalidRequestError" would say it twice
"""Every way a call can fail, as the caller of the client library sees it.

Two tables say which class a failure becomes: by the router's reason, and by the gRPC code where there is no
reason. Refuses to know how a failure travels: that is in `modelrouter.status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request: its path in the contract's words, and what to do about it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One target that the router tried; ``outcome`` and ``reason`` are short words of the router's own.

    Each is empty where the router did not know it.
    """

    target: str
    provider: str
    outcome: str
    reason: str = ""

    def __str__(self) -> str:
        why = ", ".join(word for word in (self.outcome, self.reason) if word)
        return f"{self.target} ({why})" if why else self.target


class ModelRouterError(Exception):
    """A call failed.

    Attributes:
        message: what was wrong.
        code: the gRPC status code.
        reason: the router's reason, ``MODEL_NOT_FOUND`` for example; empty where the router gave none.
        metadata: further facts that belong to the reason.
        violations: the bad fields of the request.
        retry_after: seconds after which the same call may succeed, or None.
        request_id: what to quote when asking the router's operators; empty where it is not known.
        attempts: the targets that were tried, in order.
        partial: the text of the answer that had arrived, where a stream broke.
    """

    advice: ClassVar[str] = ""
    """What to do, for failures that the router did not put into its own words."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        request_id: str = "",
        attempts: tuple[FailedAttempt, ...] = (),
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after = retry_after
        self.request_id = request_id
        self.attempts = attempts
        self.partial = partial

    def __str__(self) -> str:
        said = " ".join(_sentence(part) for part in self._sentences() if part)
        return f"{said} (request {self.request_id})" if self.request_id else said

    def _sentences(self) -> list[str]:
        news = [v for v in self.violations if v.description not in self.message]
        return [
            self.message or f"the call failed with {self.code.name}",
            "; ".join(f"{v.field}: {v.description}" for v in news),
            f"Tried {', '.join(map(str, self.attempts))}" if self.attempts else "",
            "" if self.reason else self.advice,
            "" if self.retry_after is None else f"Try again in {self.retry_after:.3g} s",
        ]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


class InvalidRequest(ModelRouterError):
    """The request is wrong; ``violations`` names every bad field."""

    advice = "Correct the request; sending it again will not help."


class ContextLengthExceeded(InvalidRequest):
    """The prompt is too long for every target of the route."""


class ModelNotFound(ModelRouterError):
    """There is no such route."""

    advice = "`modelrouter models` lists the routes."


class CapabilityUnsupported(ModelRouterError):
    """No target of the route can do what the request needs."""

    @property
    def capability(self) -> str:
        """What no target can do; empty where the router did not say."""
        return self.metadata.get("capability", "")


class ContentFiltered(ModelRouterError):
    """A provider's content filter refused the request."""


class ResourceExhausted(ModelRouterError):
    """Some limit was reached; ``retry_after`` says when to come back, where that is known."""


class Saturated(ResourceExhausted):
    """The router's own queues are full."""


class QuotaExceeded(ResourceExhausted):
    """The caller's quota is used up."""


class BudgetExceeded(ResourceExhausted):
    """The caller's budget is spent."""


class RateLimited(ResourceExhausted):
    """Every target of the route is rate-limited by its provider."""


class Unavailable(ModelRouterError):
    """Nothing could answer now."""


class AllTargetsFailed(Unavailable):
    """Every target of the route failed; ``attempts`` says how."""


class ServerUnreachable(Unavailable):
    """No router answered at the target."""

    advice = "Start one with `make run` or `router-server serve`, or name another target."


class StreamInterrupted(ModelRouterError):
    """The answer broke off after some of it had arrived; ``partial`` is the text so far."""

    @property
    def input_tokens(self) -> int:
        """Input tokens that the broken answer used; 0 where the router did not say."""
        return int(self.metadata.get("partial_input_tokens", 0))

    @property
    def output_tokens(self) -> int:
        """Output tokens that the broken answer used; 0 where the router did not say."""
        return int(self.metadata.get("partial_output_tokens", 0))


class DeadlineExceeded(ModelRouterError):
    """The call's time ran out."""

    advice = "Give the call more time (`timeout=`), or ask for a shorter answer."

    @property
    def phase(self) -> str:
        """What was waited for: queue, connect, first_token, stream; empty where that is not known."""
        return self.metadata.get("phase", "")


class UpstreamMisconfigured(ModelRouterError):
    """The router's own key was refused, or the model it is configured to use does not exist."""


class Unauthenticated(ModelRouterError):
    """The router does not know the caller."""

    advice = "Give a valid key with `api_key=`."


class PermissionDenied(ModelRouterError):
    """The caller may not do this."""


class Cancelled(ModelRouterError):
    """The call was cancelled, by ``cancel()`` or by the server."""


class Unimplemented(ModelRouterError):
    """What answers at the target does not offer this call: not a model router, or another version of it."""

    advice = "Check that the target is a model router of the same version as this client."


class Internal(ModelRouterError):
    """A fault of the router itself; quote ``request_id`` when you report it."""


class MalformedAnswer(Internal):
    """The router's answer broke the contract, so no part of it can be trusted."""


BY_REASON: Final[Mapping[str, type[ModelRouterError]]] = {
    "INVALID_REQUEST": InvalidRequest,
    "MODEL_NOT_FOUND": ModelNotFound,
    "CAPABILITY_UNSUPPORTED": CapabilityUnsupported,
    "CONTEXT_LENGTH_EXCEEDED": ContextLengthExceeded,
    "CONTENT_FILTERED": ContentFiltered,
    "ROUTER_SATURATED": Saturated,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "BUDGET_EXCEEDED": BudgetExceeded,
    "ALL_TARGETS_RATE_LIMITED": RateLimited,
    "ALL_TARGETS_FAILED": AllTargetsFailed,
    "STREAM_INTERRUPTED": StreamInterrupted,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UPSTREAM_AUTH_FAILED": UpstreamMisconfigured,
    "UPSTREAM_MODEL_MISSING": UpstreamMisconfigured,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "INTERNAL": Internal,
}

BY_CODE: Final[Mapping[grpc.StatusCode, type[ModelRouterError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: StreamInterrupted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNKNOWN: Internal,
    grpc.StatusCode.DATA_LOSS: Internal,
}
