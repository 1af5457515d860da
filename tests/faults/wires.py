"""Two wires in the same words: what an upstream says, as OpenAI's servers and as Gemini put it.

Pieces of answers only: what goes wrong with them is in `faults`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.upstream import Request, Steps, Upstream, json_reply, sse_reply

INPUT_TOKENS = 11


@dataclass(frozen=True)
class Said:
    """A whole answer in text, and the model that gives it; one token a word."""

    model: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.words)


def said(model: str, tokens: int = 60) -> Said:
    """Return an answer that shows who gave it, no word with white space at its end."""
    return Said(model, tuple(f"{' ' if n else ''}{model}-{n}" for n in range(tokens)))


class Wire(Protocol):
    """How a kind of provider puts things; an event is the JSON value of one event of a stream."""

    @property
    def kind(self) -> str:
        """The kind of the provider."""

    @property
    def health_path(self) -> str:
        """Where its active check looks."""

    @property
    def says_done(self) -> bool:
        """Whether a stream ends with ``[DONE]``."""

    def streams(self, request: Request) -> bool:
        """Tell whether ``request`` asks for a stream."""

    def text(self, piece: str) -> Any:
        """Return an event with a piece of text."""

    def thought(self, piece: str) -> Any:
        """Return an event with a piece of reasoning."""

    def tool_call(self, index: int, name: str, fragments: Sequence[str]) -> list[Any]:
        """Return the events of a tool call whose arguments are the fragments together."""

    def ending(self, model: str, output_tokens: int, *, finish: str = "stop") -> list[Any]:
        """Return the last events: why it stopped, and what it took."""

    def whole(self, answer: Said) -> Any:
        """Return a unary answer."""

    def refusal(self, status: int, *, retry_after: float | None = None) -> Steps:
        """Return an error."""

    def too_long(self) -> Steps:
        """Return the refusal of a prompt that is longer than the context window."""

    def filtered(self, *, streaming: bool) -> Steps:
        """Return the refusal of a prompt by the content filter."""


def provider_keys(wire: Wire, upstream: Upstream) -> str:
    """Return the keys of a provider that is this upstream."""
    more = ", load_interval: null" if wire.kind == "vllm" else ""
    return f'kind: {wire.kind}, api_key: very-secret-key, base_url: "{upstream.base_url}"{more}'


def events(wire: Wire, answer: Said) -> list[Any]:
    """Return the events of a whole stream."""
    return [
        *(wire.text(word) for word in answer.words),
        *wire.ending(answer.model, len(answer.words)),
    ]


@dataclass(frozen=True)
class OpenAIWire:
    """OpenAI, and the servers that speak as it does."""

    kind: str = "openai"
    health_path: str = "/v1/models"
    says_done: bool = True

    def streams(self, request: Request) -> bool:
        return request.json.get("stream") is True

    def text(self, piece: str) -> Any:
        return self._chunk({"content": piece})

    def thought(self, piece: str) -> Any:
        return self._chunk({"reasoning_content": piece})

    def tool_call(self, index: int, name: str, fragments: Sequence[str]) -> list[Any]:
        head = {
            "index": index,
            "id": f"call-{name}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        rest = [{"index": index, "function": {"arguments": fragment}} for fragment in fragments]
        return [self._chunk({"tool_calls": [call]}) for call in (head, *rest)]

    def ending(self, model: str, output_tokens: int, *, finish: str = "stop") -> list[Any]:
        usage = {**self._chunk({}), "model": model, "choices": [], "usage": _openai_usage(output_tokens)}
        return [self._chunk({}, finish), usage]

    def whole(self, answer: Said) -> Any:
        message = {"role": "assistant", "content": answer.text}
        return {
            "id": "c1",
            "object": "chat.completion",
            "model": answer.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _openai_usage(len(answer.words)),
        }

    def refusal(self, status: int, *, retry_after: float | None = None) -> Steps:
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:.3f}"}
        return json_reply({"error": {"message": "no", "type": "error", "code": None}}, status, headers)

    def too_long(self) -> Steps:
        error = {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}
        return json_reply({"error": error}, 400)

    def filtered(self, *, streaming: bool) -> Steps:
        del streaming
        return json_reply({"error": {"message": "no", "type": None, "code": "content_filter"}}, 400)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "c1", "object": "chat.completion.chunk", "model": "", "choices": [choice]}


def _openai_usage(output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": output_tokens,
        "total_tokens": INPUT_TOKENS + output_tokens,
    }


@dataclass(frozen=True)
class GeminiWire:
    """Gemini's own API."""

    kind: str = "gemini"
    health_path: str = "/v1/models"
    says_done: bool = False

    def streams(self, request: Request) -> bool:
        return request.path.endswith(":streamGenerateContent")

    def text(self, piece: str) -> Any:
        return _candidate({"text": piece})

    def thought(self, piece: str) -> Any:
        return _candidate({"text": piece, "thought": True})

    def tool_call(self, index: int, name: str, fragments: Sequence[str]) -> list[Any]:
        del index
        return [_candidate({"functionCall": {"name": name, "args": json.loads("".join(fragments))}})]

    def ending(self, model: str, output_tokens: int, *, finish: str = "stop") -> list[Any]:
        del finish
        return [_candidate({"text": ""}, finishReason="STOP") | _gemini_report(model, output_tokens)]

    def whole(self, answer: Said) -> Any:
        candidate = _candidate({"text": answer.text}, finishReason="STOP")
        return candidate | _gemini_report(answer.model, len(answer.words))

    def refusal(self, status: int, *, retry_after: float | None = None) -> Steps:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after or 0:.3f}s"}
        details = [] if retry_after is None else [info]
        return json_reply({"error": {"code": status, "message": "no", "details": details}}, status)

    def too_long(self) -> Steps:
        message = "The input token count (9000) exceeds the maximum number of tokens allowed (8192)."
        error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
        return json_reply({"error": error}, 400)

    def filtered(self, *, streaming: bool) -> Steps:
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "v"}
        if not streaming:
            return json_reply(blocked)
        return sse_reply([blocked], done=False)


def _candidate(part: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0, **more}]}


def _gemini_report(model: str, output_tokens: int) -> dict[str, Any]:
    usage = {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": output_tokens}
    return {"usageMetadata": usage, "modelVersion": model}


OPENAI = OpenAIWire()
GEMINI = GeminiWire()
VLLM = OpenAIWire("vllm", "/health")
WIRES: tuple[Wire, ...] = (OPENAI, GEMINI)
