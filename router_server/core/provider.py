"""The one interface that every provider kind implements, and how a kind presents itself.

A provider speaks to one upstream API. It knows nothing of routes, limits, retries, breakers or deadlines:
it sends one request and either answers or raises `UpstreamError`. Everything else is the core's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from router_server.core.engine import EngineSpec
from router_server.core.record import Record, field
from router_server.core.types import Answer, ChatRequest, Embeddings, EmbedRequest, Json, Message, StreamItem


class Capability(StrEnum):
    """Something a request may need and a target may lack; the rows of the matrix in docs/providers.md."""

    CHAT = "chat"
    EMBED = "embed"
    IMAGE_INLINE = "image_inline"
    IMAGE_URL = "image_url"
    AUDIO_INLINE = "audio_inline"
    DOCUMENT_INLINE = "document_inline"
    DOCUMENT_URL = "document_url"
    TOOLS = "tools"
    PARALLEL_TOOL_CONTROL = "parallel_tool_control"
    ALLOWED_TOOLS = "allowed_tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"
    CHOICE = "choice"
    REASONING_EFFORT = "reasoning_effort"
    TOP_K = "top_k"
    STOP = "stop"
    SEED = "seed"
    PENALTIES = "penalties"
    LOGPROBS = "logprobs"
    CONTINUATION = "continuation"
    """Can continue an assistant message: what RESUME needs."""
    EMBED_DIMENSIONS = "embed_dimensions"
    EMBED_TASK = "embed_task"


class UpstreamChat(Record, frozen=True):
    """One chat request for one upstream.

    Attributes:
        model: the upstream's own model name.
        request: the caller's request with the target's defaults and caps already applied.
        options: the caller's provider options for this provider or kind, merged; to be refused or merged
            into the upstream request.
        headers: to be sent along (W3C trace context); empty where the provider opted out.
        connect_timeout: seconds for name lookup, TCP and TLS together; exceeding it is
            ``UpstreamError(TIMEOUT, phase=CONNECT)``. Every other timer is the core's.
        priority: higher is more urgent.
        continuation: the assistant text to be continued, without repeating it; None but for RESUME.
    """

    model: str
    request: ChatRequest
    options: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    connect_timeout: float = 5.0
    priority: int = 0
    continuation: str | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the caller sent it."""
        return self.request.messages


class UpstreamEmbed(Record, frozen=True):
    """One batch of texts for one upstream; the fields are as in `UpstreamChat`."""

    model: str
    request: EmbedRequest
    options: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    connect_timeout: float = 5.0
    priority: int = 0


Take = Callable[[Sequence[StreamItem]], bool]
"""Takes one read of a stream; tells whether the next may be handed over in the same way."""


class Provider(Protocol):
    """One upstream API with its credentials and its transport."""

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port for telemetry, without credentials; ("", None) where nothing is remote."""

    @property
    def max_embed_batch(self) -> int:
        """How many inputs one embed call takes, at least 1."""

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer.

        Raises:
            UpstreamError: with the class of the failure. Cancellation closes the connection.
        """

    def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:
        """Yield the answer as it arrives.

        Each yield holds all that one read from the upstream brought, so that a burst costs one step.
        A read that brought an event with no content yields ``(Report(),)`` or an empty sequence: it tells
        the timers that the upstream is alive. `Finish` comes exactly once, and last but for a `Report` of
        usage. A stream that ends without `Finish` raises ``UpstreamError(MALFORMED)``. The iterator is an
        async generator: its ``aclose`` closes the connection, and its ``asend`` may be given a `Take`, to
        which it may hand the following reads as they come, in place of yielding them.

        Raises:
            UpstreamError: with the class of the failure.
        """

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per input, in order.

        Raises:
            UpstreamError: with the class of the failure.
        """

    async def check(self) -> bool | None:
        """Ask the upstream whether it is well, spending no tokens; the caller bounds the time.

        Returns:
            True: well. False: unwell. None: the upstream has no such question (404, 405), so nothing is
            known.

        Raises:
            UpstreamError: unwell, and its reason says why.
        """

    async def close(self) -> None:
        """Close every connection; the provider is not used again."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine says it is.

    Attributes:
        running: requests that it works on.
        waiting: requests that it has not begun.
        cache_used: the share of its cache that running requests hold, 0 to 1.
        crowded: by the provider's own measure it is as good as full: others are to be asked first.
    """

    running: float
    waiting: float
    cache_used: float = 0.0
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class LoadPace:
    """Seconds from one question about the load to the next: while calls flow, and otherwise."""

    busy: float = 1.0
    idle: float = 15.0


@runtime_checkable
class ReportsLoad(Protocol):
    """A provider whose engine can be asked how busy it is."""

    @property
    def load_pace(self) -> LoadPace | None:
        """How often; None: never."""

    async def load(self) -> EngineLoad | None:
        """Ask; the caller bounds the time. None: the engine has no such question.

        Raises:
            UpstreamError: there was no answer.
        """


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the configuration says of any provider, whatever its kind.

    Attributes:
        name: its name in the configuration.
        retry_after_cap: the longest wait believed of an upstream, seconds.
        max_connections: how many connections may be open at once: the provider's max_concurrency.
        models: the upstream models that the targets of this provider name.
        socket: the Unix socket of the provider's engine, where it has one.
    """

    name: str
    retry_after_cap: float = 60.0
    max_connections: int = 64
    models: tuple[str, ...] = ()
    socket: str = ""


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """What an entry point of the group ``modelrouter.providers`` names.

    Attributes:
        name: the value of ``kind`` in the configuration; the entry point has the same name.
        settings: a pydantic model with ``extra="forbid"``: the keys of this kind beyond the common ones.
        capabilities: what a target of this kind can do unless its configuration says otherwise.
        able: what one model of this kind can do, given the settings, where models differ and their names
            tell; None: all that the kind can.
        prepare: slow work that is done once for a machine, a conversion for example, told to a person while
            it lasts; blocks, so it is run on a thread before `create`; raises what `create` may raise.
        create: makes a provider from validated settings; called inside the running event loop; opens
            no connection yet.
        summary: one line for the documentation.
        engine: the process that the router must run for a provider with these settings, listening on the
            socket whose path is the second argument; None, or a kind without this: it needs none.
        endpoints: where settings may name several servers that are one provider: gives the settings of each
            by a short name for people, at least two; none where they name one server. Each becomes an
            upstream of its own, with all the limits and checks of the provider.
        prefix_affinity: tells whether its endpoints keep the beginnings of prompts, so that calls which
            begin alike are better sent to the same one.
    """

    name: str
    settings: type[Any]
    capabilities: frozenset[Capability]
    create: Callable[[Any, Surroundings], Provider]
    summary: str = ""
    able: Callable[[Any, str], frozenset[Capability]] | None = None
    prepare: Callable[[Surroundings, Callable[[str], None]], object] | None = None
    engine: Callable[[Any, str], EngineSpec | None] | None = None
    endpoints: Callable[[Any], Mapping[str, Any]] | None = None
    prefix_affinity: Callable[[Any], bool] | None = None

    def endpoints_of(self, settings: Any) -> Mapping[str, Any]:
        """Return the settings of each endpoint by name; the name is empty where there is only one."""
        return (self.endpoints and self.endpoints(settings)) or {"": settings}

    def capabilities_of(self, settings: Any, model: str) -> frozenset[Capability]:
        """Return what ``model`` can do under ``settings``, unless the configuration says otherwise."""
        return self.capabilities if self.able is None else self.able(settings, model)
