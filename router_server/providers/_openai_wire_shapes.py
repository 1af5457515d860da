"""The JSON of OpenAI's chat answers, as types to decode into, and how its small values become ours.

Every field that any known server leaves out or sends as null may be missing; unknown fields are ignored. A
value of the wrong type is an error. Refuses to know streams and requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import EngineTimes, FinishReason, TokenLogprob, Usage
from router_server.providers._json import Count


class WireFunction(msgspec.Struct, gc=False):
    """A function call, or a fragment of one."""

    name: str | None = None
    arguments: str | None = None


class WireToolCall(msgspec.Struct, gc=False):
    """A tool call, or a fragment of one; ``index`` tells the calls of one stream apart."""

    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(msgspec.Struct, gc=False):
    """A message, or what a chunk adds to it.

    ``reasoning_content`` and ``reasoning`` are the two names under which servers show their thinking.
    """

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None


class WireToken(msgspec.Struct, gc=False):
    """A token's log probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[WireToken] | None = None


class WireLogprobs(msgspec.Struct, gc=False):
    """The log probabilities of an answer or of a chunk."""

    content: list[WireToken] | None = None
    refusal: list[WireToken] | None = None


class WireInputDetails(msgspec.Struct, gc=False):
    """What the prompt's tokens were."""

    cached_tokens: Count | None = None


class WireOutputDetails(msgspec.Struct, gc=False):
    """What the answer's tokens were."""

    reasoning_tokens: Count | None = None


class WireUsage(msgspec.Struct, gc=False):
    """Token counts; the totals include the details."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: WireInputDetails | None = None
    completion_tokens_details: WireOutputDetails | None = None


class WireChoice(msgspec.Struct, gc=False):
    """One answer out of several; only the one with index 0 is ours."""

    index: int = 0
    message: WireMessage | None = None
    delta: WireMessage | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class WireTimes(msgspec.Struct, gc=False):
    """Where a vLLM server says that a request's time went, in milliseconds.

    Sent by servers that were started with ``--enable-per-request-metrics``. The time to the first token
    counts from the moment that the request was begun, so it is what the prefill took.
    """

    queue_time_ms: float | None = None
    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None


NO_ERROR: Final = msgspec.Raw()
"""The value of an ``error`` that is not there."""

_NOTHING_MEASURED: Final = msgspec.Raw()


class WireAnswer(msgspec.Struct, gc=False):
    """A whole answer or one chunk of a stream; ``error`` in place of everything else."""

    model: str | None = None
    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = NO_ERROR
    metrics: msgspec.Raw = _NOTHING_MEASURED


_TIMES: Final = msgspec.json.Decoder(WireTimes | None)

ANSWER: Final = msgspec.json.Decoder(WireAnswer)

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}

_BROKEN_OFF: Final = frozenset({"abort", "error"})
"""The reasons with which servers end an answer that they could not complete."""


def error_in(raw: msgspec.Raw) -> bytes | None:
    """Return an ``error`` value as JSON, None where it is null or not there."""
    if raw is NO_ERROR:
        return None
    value = bytes(raw)
    return None if value == b"null" else value


def times_of(raw: msgspec.Raw) -> EngineTimes | None:
    """Return ``metrics`` in our words; None where there are none of vLLM's: nobody depends on them."""
    if raw is _NOTHING_MEASURED:
        return None
    try:
        times = _TIMES.decode(raw)
    except msgspec.DecodeError:
        return None
    if times is None:
        return None
    known = EngineTimes(
        _seconds(times.queue_time_ms),
        _seconds(times.time_to_first_token_ms),
        _seconds(times.generation_time_ms),
    )
    return None if known == EngineTimes() else known


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None or milliseconds < 0 else milliseconds / 1000


def finish_reason(word: str, *, has_tool_calls: bool) -> FinishReason:
    """Return what a server's word for the end means.

    OpenAI says ``stop`` also after the call of a tool that was forced; callers are told TOOL_CALLS.

    Raises:
        UpstreamError: UNAVAILABLE where the word says that the answer was broken off.
    """
    if word in _BROKEN_OFF:
        raise UpstreamError(Outcome.UNAVAILABLE, "upstream_aborted")
    reason = _FINISH.get(word, FinishReason.OTHER)
    return FinishReason.TOOL_CALLS if has_tool_calls and reason is FinishReason.STOP else reason


def usage_of(usage: WireUsage) -> Usage:
    """Return the token counts in our words."""
    details_in, details_out = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cache_read_input_tokens=(details_in.cached_tokens or 0) if details_in else 0,
        reasoning_output_tokens=(details_out.reasoning_tokens or 0) if details_out else 0,
    )


def logprobs_of(logprobs: WireLogprobs) -> tuple[TokenLogprob, ...]:
    """Return the log probabilities of the answer's or the refusal's tokens.

    Raises:
        UpstreamError: MALFORMED where a token's bytes are none.
    """
    return _tokens(logprobs.content or logprobs.refusal or ())


def _tokens(tokens: Iterable[WireToken]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token.token, token.logprob, _bytes_alone(token.bytes), _tokens(token.top_logprobs or ()))
        for token in tokens
    )


def _bytes_alone(values: list[int] | None) -> bytes:
    """Return a token's bytes where they are not valid UTF-8 by themselves: otherwise the text says it."""
    if not values:
        return b""
    try:
        raw = bytes(values)
        raw.decode()
    except UnicodeDecodeError:
        return raw
    except ValueError:
        raise UpstreamError(Outcome.MALFORMED, "wrong_shape") from None
    return b""
