"""What a caller asks of a model, and of the router itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, final

from router_server.core.record import Record, field
from router_server.core.types.content import Message

Json = Mapping[str, Any]


class Operation(StrEnum):
    """What a call wants of a target."""

    CHAT = "chat"
    STREAM = "stream"
    EMBED = "embed"


class Tool(Record, frozen=True):
    """A function offered to the model; the schema is JSON Schema text, already known to be an object."""

    name: str
    description: str = ""
    parameters_json_schema: str = ""
    strict: bool = False


class ToolMode(StrEnum):
    """Whether the model may, must, or must not call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ToolChoice(Record, frozen=True):
    """How tools may be used; ``mode`` None and ``parallel`` None leave it to the provider."""

    mode: ToolMode | None = None
    allowed: tuple[str, ...] = ()
    parallel: bool | None = None


class JsonObject(Record, frozen=True):
    """The answer is some JSON object."""


class JsonSchema(Record, frozen=True):
    """The answer is JSON that obeys ``schema_json``."""

    name: str
    schema_json: str
    strict: bool = False


class Regex(Record, frozen=True):
    """The answer matches ``pattern``."""

    pattern: str


class Grammar(Record, frozen=True):
    """The answer is a sentence of ``text``, a grammar in the provider's own notation (EBNF for vLLM)."""

    text: str


class Choice(Record, frozen=True):
    """The answer is exactly one of ``choices``."""

    choices: tuple[str, ...]


ResponseFormat = JsonObject | JsonSchema | Regex | Grammar | Choice


class ReasoningEffort(StrEnum):
    """How much a reasoning model may think."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Generation(Record, frozen=True):
    """Sampling parameters; None leaves a value to the target's configuration, then to the provider."""

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: ReasoningEffort | None = None
    top_logprobs: int | None = None


class StreamRecovery(StrEnum):
    """What to do when a stream breaks after the commit point."""

    NONE = "none"
    RESTART = "restart"
    RESUME = "resume"


class Routing(Record, frozen=True):
    """What the caller asks of the router itself; times in seconds."""

    allowed_targets: tuple[str, ...] = ()
    allow_failover: bool = True
    first_token_timeout: float | None = None
    stream_recovery: StreamRecovery | None = None
    priority: int = 0
    coalesce_window: float = 0.0
    allow_cache: bool | None = None
    heartbeat_interval: float | None = None


class ChatRequest(Record, frozen=True):
    """One conversation turn; ``provider_options`` maps a provider's name or kind to parsed JSON."""

    model: str
    messages: tuple[Message, ...]
    generation: Generation = Generation()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    response_format: ResponseFormat | None = None
    routing: Routing = Routing()
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""
    provider_options: Mapping[str, Json] = field(default_factory=dict)
    user_id: str = ""


class EmbeddingTask(StrEnum):
    """What the vectors are for, where a model distinguishes."""

    QUERY = "query"
    DOCUMENT = "document"


@final
class EmbedRequest(Record, frozen=True):
    """Texts to turn into vectors, one each, in order."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    task: EmbeddingTask | None = None
    routing: Routing = Routing()
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""
    provider_options: Mapping[str, Json] = field(default_factory=dict)
    user_id: str = ""
