"""The kind ``vllm``: a vLLM server, over TCP or a unix socket.

OpenAI's wire, and what vLLM adds to it: top_k, answers bound by a regex, a grammar or a choice, scheduling
priority, and the continuation of an assistant message. Field names are those of vLLM 0.12 and later.
Where the router is to run the server itself, `_vllm_serve` says how. Refuses to know processes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final

from msgspec.structs import replace

from router_server.core.engine import EngineSpec
from router_server.core.errors import UpstreamError
from router_server.core.provider import (
    Capability,
    EngineLoad,
    LoadPace,
    Provider,
    ProviderKind,
    Surroundings,
    Take,
    UpstreamChat,
    UpstreamEmbed,
)
from router_server.core.types import Answer, Embeddings, Grammar, Regex, StreamItem
from router_server.providers._by_name import embedding_if_called_so
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._failure import Verdict, well_if_ok
from router_server.providers._http import HttpClient
from router_server.providers._openai_wire import OpenAIWire
from router_server.providers._openai_wire_errors import read_error
from router_server.providers._openai_wire_request import Constraint, Dialect
from router_server.providers._settings import bearer
from router_server.providers._vllm_load import Crowding, read_load
from router_server.providers._vllm_serve import spec_of
from router_server.providers._vllm_settings import API, Settings

_MAX_EMBED_BATCH: Final = 2048
"""vLLM has no limit of its own; OpenAI's keeps one answer within the size that is read."""

_HEALTH_UNKNOWN: Final = frozenset({404, 405})

_NO_PRIORITY: Final = "priority_not_scheduled"
_NO_PRIORITY_WORDS: Final = b"priority scheduling is not enabled"
"""vLLM's words for a priority other than 0 where it was started without ``--scheduling-policy priority``."""


class VllmProvider:
    """One vLLM server."""

    load_pace: LoadPace | None

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        endpoint = parse_endpoint(settings.server or f"unix://{surroundings.socket}", default_path=API)
        self._http = HttpClient(endpoint, bearer(settings.api_key), surroundings, _read_error)
        self._wire = OpenAIWire(self._http, _DIALECT)
        self._schedules_by_priority = True
        self._crowding = Crowding(settings.crowded_waiting, settings.crowded_cache)
        busy, idle = settings.load_interval, settings.load_idle_interval
        self.load_pace = None if busy is None else LoadPace(busy, max(busy, idle))

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port, or the socket's path and None."""
        return self._http.address

    @property
    def max_embed_batch(self) -> int:
        """How many inputs one embed call takes."""
        return _MAX_EMBED_BATCH

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer."""
        understood = self._understood(call)
        try:
            return await self._wire.chat(understood)
        except UpstreamError as error:
            if not self._learn(error, understood):
                raise
        return await self._wire.chat(self._understood(call))

    def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], Take | None]:
        """Yield the answer as it arrives."""
        understood = self._understood(call)
        return (
            self._stream_with_priority(understood) if understood.priority else self._wire.stream(understood)
        )

    async def _stream_with_priority(
        self, call: UpstreamChat
    ) -> AsyncGenerator[Sequence[StreamItem], Take | None]:
        for asked in (call, replace(call, priority=0)):
            try:
                async with aclosing(self._wire.stream(asked)) as reads:
                    take: Take | None = None
                    with suppress(StopAsyncIteration):
                        while True:
                            take = yield await reads.asend(take)
            except UpstreamError as error:
                if not self._learn(error, asked):
                    raise
            else:
                return

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per input, in order."""
        return await self._wire.embed(call)

    async def check(self) -> bool | None:
        """Ask ``/health``, which stands beside /v1 and fails when the engine is dead."""
        status = await self._http.status("/health", beside=API)
        return None if status in _HEALTH_UNKNOWN else well_if_ok(status)

    async def load(self) -> EngineLoad | None:
        """Read ``/metrics``, which stands beside /v1.

        Raises:
            UpstreamError: there was no answer.
        """
        status, body = await self._http.get("/metrics", beside=API)
        return read_load(body, self._crowding) if status == HTTPStatus.OK else None

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def _understood(self, call: UpstreamChat) -> UpstreamChat:
        """Return the call as this server can take it."""
        return call if self._schedules_by_priority else replace(call, priority=0)

    def _learn(self, error: UpstreamError, call: UpstreamChat) -> bool:
        """Return whether the server only refused the priority, so that the call can be made without."""
        if error.reason != _NO_PRIORITY or not call.priority:
            return False
        self._schedules_by_priority = False
        return True


def _read_error(status: int, body: bytes) -> Verdict:
    if status == HTTPStatus.BAD_REQUEST and _NO_PRIORITY_WORDS in body.lower():
        return Verdict(reason=_NO_PRIORITY)
    return read_error(status, body)


def _constrain(constraint: Constraint) -> dict[str, Any]:
    if isinstance(constraint, Regex):
        return {"structured_outputs": {"regex": constraint.pattern}}
    if isinstance(constraint, Grammar):
        return {"structured_outputs": {"grammar": constraint.text}}
    return {"structured_outputs": {"choice": list(constraint.choices)}}


def _more(call: UpstreamChat) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if call.priority:
        # vLLM serves the lower number first.
        fields["priority"] = -call.priority
    if call.continuation is not None:
        fields["continue_final_message"] = True
        fields["add_generation_prompt"] = False
    return fields


_DIALECT: Final = Dialect(reasoning_history=True, constrain=_constrain, more=_more)


def _create(settings: Settings, surroundings: Surroundings) -> Provider:
    return VllmProvider(settings, surroundings)


def _engine(settings: Settings, socket: str) -> EngineSpec | None:
    return None if settings.serve is None else spec_of(settings.serve, settings.api_key, socket)


_CAPABILITIES: Final = frozenset(
    {
        Capability.CHAT,
        Capability.EMBED,
        Capability.IMAGE_INLINE,
        Capability.IMAGE_URL,
        Capability.AUDIO_INLINE,
        Capability.TOOLS,
        Capability.PARALLEL_TOOL_CONTROL,
        Capability.ALLOWED_TOOLS,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.REGEX,
        Capability.GRAMMAR,
        Capability.CHOICE,
        Capability.REASONING_EFFORT,
        Capability.TOP_K,
        Capability.STOP,
        Capability.SEED,
        Capability.PENALTIES,
        Capability.LOGPROBS,
        Capability.CONTINUATION,
        Capability.EMBED_DIMENSIONS,
    }
)


KIND: Final = ProviderKind(
    name="vllm",
    settings=Settings,
    capabilities=_CAPABILITIES,
    able=lambda _settings, model: embedding_if_called_so(_CAPABILITIES, model),
    create=_create,
    engine=_engine,
    endpoints=lambda settings: settings.servers,
    prefix_affinity=lambda settings: settings.prefix_affinity,
    summary="A vLLM server, over http(s) or a unix socket, or as a child of the router.",
)
