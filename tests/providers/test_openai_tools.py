"""Tool calls in the streams of compatible servers, without a socket."""

from typing import Any

import pytest

from router_server.core.errors import Outcome
from router_server.core.types import DeltaKind, FinishReason
from router_server.providers._openai_wire_stream import StreamedAnswer
from tests.providers.openai_talk import (
    assemble,
    chunk_of,
    encoded,
    failure,
    read,
    tool_chunk,
)

TEXT, REASONING, TOOL, REFUSAL = (
    DeltaKind.TEXT,
    DeltaKind.REASONING,
    DeltaKind.TOOL_CALL,
    DeltaKind.REFUSAL,
)


A = {"id": "call_a", "type": "function", "name": "weather"}


B = {"id": "call_b", "type": "function", "name": "time"}


BOTH = [(TOOL, '{"city":"Rome"}', "call_a", "weather"), (TOOL, '{"zone":1}', "call_b", "time")]


END = chunk_of(finish="tool_calls")


@pytest.mark.parametrize(
    "chunks",
    [
        [
            tool_chunk(index=0, **A, arguments=""),
            tool_chunk(index=0, arguments='{"ci'),
            tool_chunk(index=0, arguments='ty":"Rome"}'),
            tool_chunk(index=1, **B, arguments=""),
            tool_chunk(index=1, arguments='{"zone":1}'),
        ],
        [
            tool_chunk(index=0, **A),
            tool_chunk(index=1, **B),
            tool_chunk(index=1, arguments='{"zo'),
            tool_chunk(index=0, arguments='{"city":'),
            tool_chunk(index=1, arguments='ne":1}'),
            tool_chunk(index=0, arguments='"Rome"}'),
        ],
        [
            tool_chunk(**A, arguments='{"city":'),
            tool_chunk(arguments='"Rome"}'),
            tool_chunk(**B, arguments='{"zone":1}'),
        ],
        [
            tool_chunk(index=0, **A, arguments='{"city":'),
            tool_chunk(index=0, **A, arguments='"Rome"}'),
            tool_chunk(index=1, **B, arguments='{"zone"'),
            tool_chunk(index=1, id="call_b", arguments=":1}"),
        ],
        [
            tool_chunk(index=0, **A, arguments='{"city":"Rome"}'),
            tool_chunk(index=0, **B, arguments='{"zone":1}'),
        ],
        [
            tool_chunk(index=0, id="call_a"),
            tool_chunk(index=0, arguments='{"city"'),
            tool_chunk(index=0, name="weather", arguments=':"Rome"}'),
            tool_chunk(index=1, **B, arguments='{"zone":1}'),
        ],
        [
            chunk_of({"tool_calls": [
                {"index": 0, "id": "call_a", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"index": 1, "id": "call_b", "function": {"name": "time", "arguments": '{"zone":1}'}},
            ]}),
        ],
    ],
    ids=["one after the other", "interleaved", "no index", "id and name repeated", "all index 0",
         "name late", "whole in one chunk"],
)  # fmt: skip
def test_tool_calls_in_fragments(chunks: list[dict[str, Any]]) -> None:
    whole = read(*chunks, END)
    assert (whole.parts, whole.finish) == (BOTH, FinishReason.TOOL_CALLS)
    answer = StreamedAnswer()
    assert assemble(answer.take(encoded(*chunks, END))) == whole


@pytest.mark.parametrize("index", [{}, {"index": 0}], ids=["no index", "all index 0"])
def test_tool_calls_without_ids_get_one_each(index: dict[str, int]) -> None:
    whole = read(
        tool_chunk(**index, name="weather", arguments="{}"),
        tool_chunk(**index, name="time", arguments="{}"),
        END,
    )
    assert [part[3] for part in whole.parts] == ["weather", "time"]
    assert len({part[2] for part in whole.parts}) == 2


def test_text_before_a_tool_call() -> None:
    whole = read(chunk_of({"content": "Let me look."}), tool_chunk(index=0, **A, arguments="{}"), END)
    assert whole.parts == [(TEXT, "Let me look.", "", ""), (TOOL, "{}", "call_a", "weather")]


def test_a_forced_tool_call_that_ends_with_stop_ends_with_tool_calls() -> None:
    whole = read(tool_chunk(index=0, **A, arguments="{}"), chunk_of(finish="stop"))
    assert whole.finish is FinishReason.TOOL_CALLS


def test_a_tool_call_that_never_gets_a_name_is_malformed() -> None:
    error = failure(tool_chunk(index=0, id="call_a", arguments="{}"), END)
    assert (error.outcome, error.reason) == (Outcome.MALFORMED, "tool_call_without_name")
