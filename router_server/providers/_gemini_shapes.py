"""The JSON of Gemini's answers, as types to decode into, and how its small values become ours.

A whole answer and a chunk of a stream have one shape. Every field may be missing or null, unknown fields
and parts of unknown kinds are ignored (code that Google ran itself, grounding). A value of the wrong type
is an error. Refuses to know streams and requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import FinishReason, TokenLogprob, Usage
from router_server.providers._gemini_errors import answer_failure
from router_server.providers._json import Count, decoded

NULL: Final = msgspec.Raw(b"null")
"""A value that is missing; msgspec cannot tell raw JSON from None by the type."""


class WireFunctionCall(msgspec.Struct, gc=False):
    """A function call, always whole: only other doors of Google stream the arguments."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = NULL


class WireBlob(msgspec.Struct, rename="camel", gc=False):
    """Bytes that the model made, an image for example; msgspec reads the base64."""

    mime_type: str | None = None
    data: bytes | None = None


class WirePart(msgspec.Struct, rename="camel", gc=False):
    """A part of the answer: one of text, function call and bytes, with or without a signature."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: WireFunctionCall | None = None
    inline_data: WireBlob | None = None


class WireContent(msgspec.Struct, gc=False):
    """What the model said."""

    parts: list[WirePart] | None = None


class WireToken(msgspec.Struct, rename="camel", gc=False):
    """A token and its log probability."""

    token: str | None = None
    log_probability: float | None = None


class WireTopTokens(msgspec.Struct, gc=False):
    """The alternatives at one step."""

    candidates: list[WireToken] | None = None


class WireLogprobs(msgspec.Struct, rename="camel", gc=False):
    """The chosen tokens, and the alternatives to each."""

    chosen_candidates: list[WireToken] | None = None
    top_candidates: list[WireTopTokens] | None = None


class WireCandidate(msgspec.Struct, rename="camel", gc=False):
    """One answer out of several; only the one with index 0 is ours."""

    index: int | None = None
    content: WireContent | None = None
    finish_reason: str | None = None
    logprobs_result: WireLogprobs | None = None

    @property
    def ending(self) -> str:
        """Gemini's word for why the answer ended; empty while it goes on."""
        word = self.finish_reason or ""
        return "" if word == "FINISH_REASON_UNSPECIFIED" else word


class WireFeedback(msgspec.Struct, rename="camel", gc=False):
    """What Google's filters say of the prompt."""

    block_reason: str | None = None


class WireUsage(msgspec.Struct, rename="camel", gc=False):
    """Token counts. The prompt's include the cached ones; thoughts and tool results are beside the others."""

    prompt_token_count: Count | None = None
    cached_content_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None


class WireAnswer(msgspec.Struct, rename="camel", gc=False):
    """A whole answer or one chunk; ``error`` in place of everything else."""

    candidates: list[WireCandidate] | None = None
    prompt_feedback: WireFeedback | None = None
    usage_metadata: WireUsage | None = None
    model_version: str | None = None
    error: msgspec.Raw = NULL

    @property
    def candidate(self) -> WireCandidate | None:
        """The answer that is ours."""
        return next((candidate for candidate in self.candidates or () if not candidate.index), None)

    @property
    def blocked(self) -> bool:
        """Whether the prompt was refused."""
        return self.prompt_feedback is not None and bool(self.prompt_feedback.block_reason)


_ANSWER: Final = msgspec.json.Decoder(WireAnswer)

_FILTERED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)

_SPOILED: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"}
)
"""The model made something that its own server could not use."""


def decode(body: bytes, retry_after_cap: float) -> WireAnswer:
    """Decode an answer or a chunk.

    Raises:
        UpstreamError: MALFORMED, ``not_json`` or ``wrong_shape``; or what an error object in it means.
    """
    answer = decoded(_ANSWER, body)
    if answer.error != NULL:
        raise answer_failure(answer.error, retry_after_cap)
    return answer


def finish_of(word: str, *, has_content: bool, has_tool_calls: bool, usage: Usage | None) -> FinishReason:
    """Return what Gemini's word for the end means; it says STOP also after function calls.

    A filter that struck in the middle of an answer is a finish reason, and one that left nothing a failure.
    So it is with an answer that the model spoiled: where nothing of it is left another target may do
    better, but the call's own tools may be what the model stumbles over, so the upstream is not blamed.

    Raises:
        UpstreamError: CONTENT_FILTER, INVALID_REQUEST or MALFORMED, where there is no content.
    """
    if word == "STOP":
        return FinishReason.TOOL_CALLS if has_tool_calls else FinishReason.STOP
    if word == "MAX_TOKENS":
        return FinishReason.LENGTH
    if not has_content:
        _check_not_in_vain(word, usage)
    return FinishReason.CONTENT_FILTER if word in _FILTERED else FinishReason.OTHER


def _check_not_in_vain(word: str, usage: Usage | None) -> None:
    if word in _FILTERED:
        raise UpstreamError(Outcome.CONTENT_FILTER, f"finish_{word.lower()}", usage=usage)
    if word in _SPOILED:
        raise UpstreamError(Outcome.MALFORMED, f"finish_{word.lower()}", usage=usage, blameless=True)
    if word == "MISSING_THOUGHT_SIGNATURE":
        raise UpstreamError(Outcome.INVALID_REQUEST, "missing_thought_signature", usage=usage)


def prompt_blocked(usage: Usage | None) -> UpstreamError:
    """Return the failure that a refused prompt means."""
    return UpstreamError(Outcome.CONTENT_FILTER, "prompt_blocked", usage=usage)


def usage_of(usage: WireUsage | None) -> Usage | None:
    """Return the token counts in our words."""
    if usage is None:
        return None
    thoughts = usage.thoughts_token_count or 0
    return Usage(
        input_tokens=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        output_tokens=(usage.candidates_token_count or 0) + thoughts,
        cache_read_input_tokens=usage.cached_content_token_count or 0,
        reasoning_output_tokens=thoughts,
    )


def logprobs_of(logprobs: WireLogprobs | None) -> tuple[TokenLogprob, ...]:
    """Return the log probabilities of the chosen tokens, each with its alternatives."""
    if logprobs is None:
        return ()
    chosen = _tokens(logprobs.chosen_candidates or ())
    tops = [_tokens(top.candidates or ()) for top in logprobs.top_candidates or ()]
    tops += [()] * (len(chosen) - len(tops))
    return tuple(
        TokenLogprob(token.token, token.logprob, top=top) for token, top in zip(chosen, tops, strict=False)
    )


def _tokens(tokens: Iterable[WireToken]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token.token or "", token.log_probability or 0.0) for token in tokens)
