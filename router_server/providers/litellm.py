"""The kind ``litellm``: any provider that the package litellm speaks to, through it, in this process.

It translates requests and answers. Retries, failover, limits and timers stay the router's. Refuses to know
any provider by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import (
    Capability,
    Provider,
    ProviderKind,
    Surroundings,
    UpstreamChat,
    UpstreamEmbed,
)
from router_server.core.types import Answer, Delta, DeltaKind, Embeddings, StreamItem
from router_server.providers._by_name import embedding_if_called_so
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._extras import require_extra
from router_server.providers._litellm_library import (
    Connections,
    connect_limit,
    library,
    require_provider_names,
)
from router_server.providers._litellm_request import chat_arguments, embed_arguments
from router_server.providers._litellm_settings import Settings
from router_server.providers._litellm_thoughts import KIND_NAME, Thoughts, with_state
from router_server.providers._openai_wire_answer import read_answer
from router_server.providers._openai_wire_embed import embeddings_of
from router_server.providers._openai_wire_stream import StreamedAnswer


class LiteLLMProvider:
    """One provider of litellm's, with one set of credentials."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self._arguments = settings.arguments()
        self._headers = self._arguments.pop("extra_headers", {})
        self._litellm: Any = None
        self._connections = Connections()
        self._retry_after_cap = surroundings.retry_after_cap
        self._address = parse_endpoint(settings.base_url).address if settings.base_url else ("", None)
        self._max_embed_batch = settings.max_embed_batch

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port of the base_url; ("", None) where litellm knows the address."""
        return self._address

    @property
    def max_embed_batch(self) -> int:
        """How many inputs one embed call takes."""
        return self._max_embed_batch

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer."""
        arguments = chat_arguments(call, stream=False)
        whole = _plain(await self._ask("acompletion", arguments, call.connect_timeout))
        return with_state(read_answer(msgspec.json.encode(whole)), _thoughts_in(whole), call.model)

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], None]:
        """Yield the answer as it arrives, one yield for each chunk of litellm's."""
        arguments = chat_arguments(call, stream=True)
        chunks = await self._ask("acompletion", arguments, call.connect_timeout)
        answer, thoughts = StreamedAnswer(), Thoughts(call.model)
        reasoning: int | None = None
        try:
            while (chunk := await self._next(chunks)) is not None:
                piece = _plain(chunk)
                items = answer.take([msgspec.json.encode(piece)])
                if answer.finished and _is_invented(chunks):
                    raise UpstreamError(Outcome.MALFORMED, "no_finish_reason")
                reasoning = _reasoning_in(items) if reasoning is None else reasoning
                state = thoughts.take(_thoughts_in(piece))
                if state and reasoning is not None:
                    items.append(Delta(reasoning, DeltaKind.REASONING, opaque_state=state))
                yield items
        finally:
            await chunks.aclose()
        answer.end()

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per input, in order."""
        answer = await self._ask("aembedding", embed_arguments(call), call.connect_timeout)
        return embeddings_of(_plain(answer), len(call.request.inputs), call.request.dimensions)

    async def check(self) -> bool | None:
        """Return None: there is no question without tokens that every provider answers."""
        return None

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    async def _ask(self, function: str, arguments: Mapping[str, Any], connect_timeout: float) -> Any:
        litellm = self._litellm = self._litellm or await asyncio.to_thread(library)
        headers = {**self._headers, **arguments.get("extra_headers", {})}
        more = {"extra_headers": headers} if headers else {}
        try:
            with self._connections.in_use():
                return await getattr(litellm, function)(
                    **{**self._arguments, **arguments, **more, "timeout": connect_limit(connect_timeout)}
                )
        except Exception as error:  # noqa: BLE001 - litellm raises of its own, of the providers', of Python's
            raise self._failure(error) from None

    async def _next(self, chunks: Any) -> Any:
        """Return the next chunk; None at the end."""
        try:
            with self._connections.in_use():
                return await anext(chunks, None)
        except Exception as error:  # noqa: BLE001 - as above
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> UpstreamError:
        from router_server.providers._litellm_errors import failure_of  # noqa: PLC0415 - imports what the extra brings

        return failure_of(error, self._retry_after_cap)


def _plain(answer: Any) -> dict[str, Any]:
    """Return an answer or a chunk as JSON has it, without zeros in place of a usage."""
    value: dict[str, Any] = answer.model_dump(mode="json", exclude_none=True, warnings=False)
    usage = value.get("usage")
    if usage and not any(usage.get(name) for name in ("prompt_tokens", "completion_tokens")):
        del value["usage"]
    return value


def _thoughts_in(piece: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    choice: Mapping[str, Any] = next(iter(piece.get("choices") or ()), {})
    message = choice.get("message") or choice.get("delta") or {}
    blocks: Sequence[Mapping[str, Any]] = message.get("thinking_blocks") or ()
    return blocks


def _reasoning_in(items: Sequence[StreamItem]) -> int | None:
    """Return which part of the answer its reasoning is."""
    deltas = (item for item in items if isinstance(item, Delta))
    return next((delta.part_index for delta in deltas if delta.kind is DeltaKind.REASONING), None)


def _is_invented(chunks: Any) -> bool:
    """Tell whether the reason to finish is litellm's own: it says ``stop`` also where a stream just ended."""
    return getattr(chunks, "received_finish_reason", "") is None


def _create(settings: Settings, surroundings: Surroundings) -> Provider:
    require_extra(KIND_NAME, "litellm", surroundings.name)
    return LiteLLMProvider(settings, surroundings)


def _prepare(surroundings: Surroundings, progress: Callable[[str], None]) -> None:
    """Import litellm before anything is served, and look whether it knows the models' providers."""
    require_extra(KIND_NAME, "litellm", surroundings.name)
    progress("Importing LiteLLM.")
    require_provider_names(surroundings.models, surroundings.name)


_CAPABILITIES: Final = frozenset(
    {
        Capability.CHAT,
        Capability.EMBED,
        Capability.IMAGE_INLINE,
        Capability.DOCUMENT_INLINE,
        Capability.TOOLS,
        Capability.PARALLEL_TOOL_CONTROL,
        Capability.ALLOWED_TOOLS,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.REASONING_EFFORT,
        Capability.STOP,
        Capability.SEED,
        Capability.PENALTIES,
        Capability.LOGPROBS,
        Capability.EMBED_DIMENSIONS,
    }
)
"""What litellm can carry; whether a model takes it is the model's matter. Images by URL are left out: for
many providers litellm would fetch them itself, from this machine."""


def _able(_: Settings, model: str) -> frozenset[Capability]:
    return embedding_if_called_so(_CAPABILITIES, model)


KIND: Final = ProviderKind(
    name=KIND_NAME,
    settings=Settings,
    capabilities=_CAPABILITIES,
    able=_able,
    create=_create,
    prepare=_prepare,
    summary="Whatever provider the package LiteLLM speaks to, through that package, in this process.",
)
