"""What a model answers, whole or piece by piece, and what that took."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from router_server.core.record import Record
from router_server.core.types.content import Message


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
