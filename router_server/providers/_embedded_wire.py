"""What the built-in model's runtime is asked, and what its chunks mean.

The runtime speaks the chat-completions dialect of llama.cpp. Nothing that it would silently ignore is
passed on. Refuses to know threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Generation,
    Message,
    Part,
    Reasoning,
    Refusal,
    Report,
    Role,
    StreamItem,
    Text,
    TokenLogprob,
    Usage,
)
from router_server.providers._embedded_constraint import constraint_of, invalid

CHAT_MODEL: Final = "smollm2-135m-instruct"

_ROLES: Final[Mapping[Role, str]] = {
    Role.SYSTEM: "system",
    Role.DEVELOPER: "system",  # the model was trained on no other name for it
    Role.USER: "user",
    Role.ASSISTANT: "assistant",
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    # So small a model seldom comes to an end by itself; 512 tokens take about five seconds on two cores.
    "max_tokens": 512,
    # The most probable token, and the same answer every time: a larger temperature costs it its facts.
    "temperature": 0.0,
    "seed": 0,
    # Without it long answers repeat themselves for ever.
    "repeat_penalty": 1.1,
    "stream_options": {"include_usage": True},
    # Chunks during a long prompt: signs of life, and the occasions on which it can be cancelled.
    "return_progress": True,
}
_FINISH: Final[Mapping[str, FinishReason]] = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def body_of(call: UpstreamChat) -> dict[str, Any]:
    """Return the request body.

    Raises:
        UpstreamError: INVALID_REQUEST, the request holds what this model cannot take.
    """
    if call.options:
        raise invalid("unknown_option")
    messages = [_message(message) for message in call.messages]
    if call.continuation is not None:
        messages.append({"role": "assistant", "content": call.continuation})
    return {
        **_DEFAULTS,
        **_sampling(call.request.generation),
        **constraint_of(call.request.response_format),
        "messages": messages,
    }


def read(chunk: Mapping[str, Any], top_logprobs: int = 0) -> Iterator[StreamItem]:
    """Yield what one chunk brought, with no more than ``top_logprobs`` alternatives for a token.

    Raises:
        UpstreamError: the chunk reports a failure.
    """
    if "error" in chunk:
        raise _failure(chunk["error"])
    for choice in chunk.get("choices", ()):
        yield from _choice(choice, top_logprobs)
    if "usage" in chunk:
        yield Report(_usage(chunk["usage"]), CHAT_MODEL)
    elif "prompt_progress" in chunk:
        yield Report()


def _message(message: Message) -> dict[str, str]:
    role = _ROLES.get(message.role)
    if role is None:
        raise invalid("tools_unsupported")
    return {"role": role, "content": "".join(_text(part) for part in message.content)}


def _text(part: Part) -> str:
    match part:
        case Text(text=text) | Refusal(text=text):
            return text
        case Reasoning():
            return ""
        case _:
            raise invalid("content_unsupported")


def _sampling(generation: Generation) -> dict[str, Any]:
    wanted = {
        "max_tokens": generation.max_output_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "seed": generation.seed,
        "presence_penalty": generation.presence_penalty,
        "frequency_penalty": generation.frequency_penalty,
        "stop": list(generation.stop_sequences) or None,
    }
    if generation.top_logprobs is not None:
        # Asked for no alternatives, the runtime tells nothing at all; `read` drops the one more.
        wanted |= {"logprobs": True, "top_logprobs": max(1, generation.top_logprobs)}
    return {key: value for key, value in wanted.items() if value is not None}


def _choice(choice: Mapping[str, Any], top: int) -> Iterator[StreamItem]:
    text = choice["delta"].get("content")
    if text:
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        yield Delta(0, DeltaKind.TEXT, text, logprobs=tuple(_logprob(entry, top) for entry in logprobs))
    reason = choice.get("finish_reason")
    if reason:
        yield Finish(_FINISH.get(reason, FinishReason.OTHER))


def _logprob(entry: Mapping[str, Any], top: int) -> TokenLogprob:
    alternatives = (entry.get("top_logprobs") or ())[:top]
    return TokenLogprob(
        entry["token"],
        entry["logprob"],
        bytes(entry.get("bytes") or ()),
        tuple(_logprob(other, 0) for other in alternatives),
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cache_read_input_tokens=cached)


def _failure(error: Mapping[str, Any]) -> UpstreamError:
    code = error.get("code", 500)
    if error.get("type") == "exceed_context_size_error":
        return UpstreamError(Outcome.CONTEXT_LENGTH, "context_length", status=code)
    outcome = Outcome.INVALID_REQUEST if 400 <= code < 500 else Outcome.UNAVAILABLE  # noqa: PLR2004 - as in HTTP
    return UpstreamError(outcome, f"engine_{code}", status=code)


def assemble(items: Sequence[StreamItem]) -> tuple[str, tuple[TokenLogprob, ...]]:
    """Return the whole text of a stream's items, and the log probabilities of its tokens."""
    deltas = [item for item in items if isinstance(item, Delta)]
    return "".join(d.text for d in deltas), tuple(entry for d in deltas for entry in d.logprobs)
