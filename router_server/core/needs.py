"""What a request needs of a target, and how large it is.

Pure functions of the request. Token counts are estimates (four characters a token, the rule of thumb of
OpenAI's documentation): good for ordering a queue and for saying so where an upstream reports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from router_server.core.provider import Capability
from router_server.core.types import (
    Blob,
    ChatRequest,
    Choice,
    EmbedRequest,
    FileRef,
    Generation,
    Grammar,
    JsonObject,
    JsonSchema,
    Part,
    Reasoning,
    Refusal,
    Regex,
    Text,
    ToolCall,
    ToolResult,
)

_CHARACTERS_PER_TOKEN = 4
UNKNOWN_OUTPUT = 1_024
"""Tokens that are reserved for an answer where neither the caller nor a target says how long it may be."""

_TOKENS_PER_ATTACHMENT = 800
"""Near what the large providers charge for an ordinary image."""

_FORMATS = {
    JsonObject: Capability.JSON_OBJECT,
    JsonSchema: Capability.JSON_SCHEMA,
    Regex: Capability.REGEX,
    Grammar: Capability.GRAMMAR,
    Choice: Capability.CHOICE,
}


_CHAT = frozenset({Capability.CHAT})


def needs_of(request: ChatRequest | EmbedRequest) -> frozenset[Capability]:
    """Return what a target must be able to do to take this request as it is."""
    if type(request) is EmbedRequest:
        return frozenset(_embed_needs(request))
    more = _chat_needs(request)
    return _CHAT.union(more) if more else _CHAT


def estimate_tokens(characters: int) -> int:
    """Return about how many tokens a text of this length has, rounding up."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


def estimate_prompt(request: ChatRequest | EmbedRequest) -> int:
    """Return about how many tokens the prompt has."""
    if type(request) is EmbedRequest:
        return sum([-(-len(text) // _CHARACTERS_PER_TOKEN) for text in request.inputs])
    turns = 0
    for message in request.messages:
        for part in message.content:
            if type(part) is Text:  # nearly always so
                turns += -(-len(part.text) // _CHARACTERS_PER_TOKEN)
            else:
                turns += part_tokens(part)
    if not request.tools:
        return turns
    return turns + sum(
        [estimate_tokens(len(tool.parameters_json_schema) + len(tool.description)) for tool in request.tools]
    )


def longest_answer(request: ChatRequest | EmbedRequest, cap: int | None) -> int:
    """Return how many tokens an answer may have, to be reserved for it.

    Args:
        request: that may say so itself.
        cap: of who answers, if there is one.
    """
    if isinstance(request, EmbedRequest):
        return 0
    told = (request.generation.max_output_tokens, cap)
    return min((tokens for tokens in told if tokens is not None), default=UNKNOWN_OUTPUT)


def _embed_needs(request: EmbedRequest) -> Iterator[Capability]:
    yield Capability.EMBED
    if request.dimensions is not None:
        yield Capability.EMBED_DIMENSIONS
    if request.task is not None:
        yield Capability.EMBED_TASK


def _chat_needs(request: ChatRequest) -> list[Capability]:
    """Return what it takes beyond a plain chat, mostly nothing; some of it perhaps twice."""
    needs = _generation_needs(request.generation)
    for message in request.messages:
        for part in message.content:
            if type(part) is not Text:
                needs.extend(_part_needs(part))
    if request.tools:
        needs.append(Capability.TOOLS)
    if request.tool_choice.parallel is not None:
        needs.append(Capability.PARALLEL_TOOL_CONTROL)
    if request.tool_choice.allowed:
        needs.append(Capability.ALLOWED_TOOLS)
    if request.response_format is not None:
        needs.append(_FORMATS[type(request.response_format)])
    return needs


def _generation_needs(generation: Generation) -> list[Capability]:
    needs = []
    if generation.reasoning_effort is not None:
        needs.append(Capability.REASONING_EFFORT)
    if generation.top_k is not None:
        needs.append(Capability.TOP_K)
    if generation.stop_sequences:
        needs.append(Capability.STOP)
    if generation.seed is not None:
        needs.append(Capability.SEED)
    if generation.presence_penalty is not None or generation.frequency_penalty is not None:
        needs.append(Capability.PENALTIES)
    if generation.top_logprobs is not None:
        needs.append(Capability.LOGPROBS)
    return needs


def _part_needs(part: Part) -> Iterator[Capability]:
    match part:
        case Blob(mime_type=mime):
            yield _media(mime, Capability.IMAGE_INLINE, Capability.DOCUMENT_INLINE)
        case FileRef(mime_type=mime):
            yield _media(mime or "image/*", Capability.IMAGE_URL, Capability.DOCUMENT_URL)
        case ToolCall():
            yield Capability.TOOLS
        case ToolResult(content=content):
            yield Capability.TOOLS
            for inner in content:
                yield from _part_needs(inner)
        case _:
            return


def _media(mime_type: str, image: Capability, document: Capability) -> Capability:
    if mime_type.startswith("image/"):
        return image
    if mime_type.startswith("audio/") and document is Capability.DOCUMENT_INLINE:
        return Capability.AUDIO_INLINE
    return document


def part_tokens(part: Part) -> int:
    """Return about how many tokens one part has."""
    match part:
        case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments_json=text):
            return estimate_tokens(len(text))
        case ToolResult(content=content):
            return sum(part_tokens(inner) for inner in content)
        case Blob() | FileRef():
            return _TOKENS_PER_ATTACHMENT
