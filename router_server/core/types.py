"""The vocabulary of a call: what a caller asks, what a model answers.

Plain frozen values, shared by every layer. Refuses to know any wire: neither protobuf nor a provider's
JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from router_server.core.record import Record, field

Json = Mapping[str, Any]


class Operation(StrEnum):
    """What a call wants of a target."""

    CHAT = "chat"
    STREAM = "stream"
    EMBED = "embed"


class Role(StrEnum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MediaDetail(StrEnum):
    """How closely an image is read, where the provider distinguishes."""

    LOW = "low"
    HIGH = "high"


class Text(Record, frozen=True):
    """A piece of text."""

    text: str
    opaque_state: bytes = b""


class Blob(Record, frozen=True):
    """Inline bytes, an image for example."""

    unsaid: ClassVar[frozenset[str]] = frozenset({"data"})

    mime_type: str
    data: bytes
    filename: str = ""
    detail: MediaDetail | None = None
    opaque_state: bytes = b""


class FileRef(Record, frozen=True):
    """Content that the upstream fetches by itself from ``uri``."""

    mime_type: str
    uri: str
    detail: MediaDetail | None = None
    opaque_state: bytes = b""


class ToolCall(Record, frozen=True):
    """A function that the model wants called; ``arguments_json`` is the model's own text."""

    id: str
    name: str
    arguments_json: str
    opaque_state: bytes = b""


class ToolResult(Record, frozen=True):
    """What the function returned, answering the call with the same id."""

    tool_call_id: str
    content: tuple[Part, ...]
    is_error: bool = False
    opaque_state: bytes = b""


class Reasoning(Record, frozen=True):
    """The model's thinking, where the provider shows it."""

    text: str
    opaque_state: bytes = b""


class Refusal(Record, frozen=True):
    """The model's own words for declining."""

    text: str
    opaque_state: bytes = b""


Part = Text | Blob | FileRef | ToolCall | ToolResult | Reasoning | Refusal


class Message(Record, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...]
    name: str = ""


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


class Usage(Record, frozen=True):
    """Token counts as the upstream reported them: input includes cached, output includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    cost_nano_usd: int | None = None
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        costs = [u.cost_nano_usd for u in (self, other) if u.cost_nano_usd is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
            self.cache_write_input_tokens + other.cache_write_input_tokens,
            self.reasoning_output_tokens + other.reasoning_output_tokens,
            sum(costs) if costs else None,
            self.estimated or other.estimated,
        )

    def costing(self, nano_usd: int) -> Usage:
        """Return the same with its cost; `replace` takes 4 µs for that, and this 1."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cache_read_input_tokens,
            self.cache_write_input_tokens,
            self.reasoning_output_tokens,
            nano_usd,
            self.estimated,
        )


class TokenLogprob(Record, frozen=True):
    """The log probability of a chosen token and of its alternatives."""

    token: str
    logprob: float
    token_bytes: bytes = b""
    top: tuple[TokenLogprob, ...] = ()


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


class EngineTimes(Record, frozen=True):
    """Where an engine says that one request's time went, in seconds; None where it does not say.

    Attributes:
        queue: from its arrival at the engine until it was begun.
        prefill: from there to the first token.
        decode: from the first token to the last.
    """

    queue: float | None = None
    prefill: float | None = None
    decode: float | None = None


class Answer(Record, frozen=True):
    """A whole chat answer of one upstream; ``reported_model`` is the name the upstream gave itself."""

    message: Message
    finish_reason: FinishReason
    usage: Usage | None
    reported_model: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    engine: EngineTimes | None = None


class DeltaKind(StrEnum):
    """What a delta adds to."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    REFUSAL = "refusal"


class Delta(Record, frozen=True):
    """A piece of the answer's part ``part_index``.

    ``text`` is text, reasoning, refusal, or a fragment of a tool call's arguments, as ``kind`` says. The
    id and the name of a tool call come with its first delta and are empty afterwards. Part indexes start
    at 0, in the order of their first delta, and a part never changes its kind.
    """

    part_index: int
    kind: DeltaKind
    text: str = ""
    tool_call_id: str = ""
    tool_name: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    opaque_state: bytes = b""


class Finish(Record, frozen=True):
    """The upstream said that the answer is complete."""

    reason: FinishReason


class Report(Record, frozen=True):
    """What the upstream told beside the content: usage so far, the model's name, times; empty if nothing."""

    usage: Usage | None = None
    model: str = ""
    engine: EngineTimes | None = None


StreamItem = Delta | Finish | Report


class Vectors(Record, frozen=True):
    """A row-major little-endian float32 matrix of ``len(data) / 4 / dimensions`` rows."""

    unsaid: ClassVar[frozenset[str]] = frozenset({"data"})

    dimensions: int
    data: bytes

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return len(self.data) // (4 * self.dimensions) if self.dimensions else 0


class Embeddings(Record, frozen=True):
    """The vectors of one upstream answer, in the order of the inputs."""

    vectors: Vectors
    usage: Usage | None
    reported_model: str = ""
