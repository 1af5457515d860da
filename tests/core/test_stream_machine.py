from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import UpstreamError
from router_server.core.intake import Intake, assemble
from router_server.core.results import Finished, Reset, Started, StreamEvent, Trail
from router_server.core.stream import StreamMachine, merge
from router_server.core.types import (
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Reasoning,
    Report,
    StreamItem,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

TRAIL = Trail("r", "t", "p", "m")

DELTAS = st.builds(
    Delta,
    part_index=st.integers(0, 3),
    kind=st.sampled_from(DeltaKind),
    text=st.text(max_size=5),
    tool_call_id=st.sampled_from(["", "", "call"]),
    opaque_state=st.sampled_from([b"", b"", b"s"]),
)
REPORTS = st.builds(Report, usage=st.none() | st.just(Usage(1, 1)))
ATTEMPTS = st.lists(
    st.tuples(
        st.lists(st.one_of(DELTAS, DELTAS, REPORTS), max_size=6),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def machine(**keep: bool) -> StreamMachine:
    return StreamMachine("id", "r", **keep)


def trail() -> Trail:
    return TRAIL


def play(attempts: list[tuple[list[StreamItem], bool]]) -> tuple[list[StreamEvent], list[list[Delta]]]:
    """Every attempt but the last breaks; the last finishes. The bool asks to resume."""
    stream = machine()
    events: list[StreamEvent] = []
    for items, resumed in attempts:
        stream.begin(resumed=resumed, reason="broke")
        events += stream.take(Intake().take(items), trail)
    events += stream.end(FinishReason.STOP, Usage(), trail)
    return events, [[i for i in items if isinstance(i, Delta)] for items, _resumed in attempts]


@given(ATTEMPTS)
def test_the_grammar_holds_whatever_the_upstreams_do(attempts: list[tuple[list[StreamItem], bool]]) -> None:
    events, _sent = play(attempts)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(e, Started | Finished) for e in events) == 2
    assert sum(isinstance(e, Reset) for e in events) <= len(attempts) - 1


@given(ATTEMPTS)
def test_following_the_resets_gives_the_text_of_what_counts(
    attempts: list[tuple[list[StreamItem], bool]],
) -> None:
    events, sent = play(attempts)
    followed: list[str] = []
    for event in events:
        if isinstance(event, Reset) and not event.resumed:
            followed = []
        elif isinstance(event, Delta):
            followed.append(event.text)
    expected: list[str] = []
    committed = False
    for index, (deltas, (_items, resumed)) in enumerate(zip(sent, attempts, strict=True)):
        brings = any(d.text or d.tool_call_id or d.opaque_state for d in deltas)
        last = index == len(attempts) - 1
        if committed and not resumed and (brings or last):
            expected = []
        expected += [d.text for d in deltas]
        committed = committed or brings
    assert "".join(followed) == "".join(expected)


@given(st.lists(DELTAS, max_size=20))
def test_merging_changes_nothing_but_the_number_of_messages(deltas: list[Delta]) -> None:
    merged = merge(deltas)
    assert len(merged) <= len(deltas)
    assert "".join(d.text for d in merged) == "".join(d.text for d in deltas)
    for field in ("tool_call_id", "opaque_state"):
        kept, sent = ([getattr(d, field) for d in ds if getattr(d, field)] for ds in (merged, deltas))
        assert kept == sent
    for before, after in itertools.pairwise(merged):
        assert (
            before.part_index != after.part_index
            or before.kind is not after.kind
            or after.tool_call_id
            or after.tool_name
            or after.opaque_state
            or before.opaque_state
        )


def test_logprobs_are_joined_with_their_text() -> None:
    deltas = [Delta(0, DeltaKind.TEXT, c, logprobs=(TokenLogprob(c, -1.0),)) for c in "abc"]
    (merged,) = merge(deltas)
    assert merged.text == "abc"
    assert [logprob.token for logprob in merged.logprobs] == ["a", "b", "c"]


def test_nothing_is_sent_before_the_first_delta() -> None:
    stream, intake = machine(), Intake()
    stream.begin(resumed=False, reason="")
    deltas = intake.take([Report(Usage(1, 0), "model-x"), Delta(0, DeltaKind.TEXT, "")])
    assert stream.take(deltas, trail) == []
    assert not stream.committed
    assert (intake.usage, intake.reported_model) == (Usage(1, 0), "model-x")


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([Finish(FinishReason.STOP), Delta(0, DeltaKind.TEXT, "x")], "delta_after_finish"),
        ([Finish(FinishReason.STOP), Finish(FinishReason.STOP)], "finished_twice"),
    ],
)
def test_going_on_after_the_finish_is_malformed(items: list[StreamItem], reason: str) -> None:
    with pytest.raises(UpstreamError, match=reason):
        Intake().take(items)


def test_ending_without_a_finish_is_malformed() -> None:
    with pytest.raises(UpstreamError, match="no_finish_reason"):
        Intake().check_finished()


def test_what_an_upstream_sent_is_counted_and_kept_only_where_that_is_asked_for() -> None:
    items: list[StreamItem] = [
        Delta(0, DeltaKind.TEXT, "eight le"),
        Report(Usage(5, 5), "m"),
        Finish(FinishReason.STOP),
    ]
    for keep in (False, True):
        intake = Intake(keep_deltas=keep)
        assert intake.answer is None
        assert intake.take(items) == items[:1]
        assert (intake.usage, intake.reported_model, intake.tokens) == (Usage(5, 5), "m", 2)
        assert intake.check_finished() is FinishReason.STOP
        assert (intake.answer is not None) is keep


def test_a_continued_text_goes_on_in_its_part() -> None:
    stream = machine(keep_text=True)
    stream.begin(resumed=False, reason="")
    stream.take([Delta(0, DeltaKind.TEXT, "one ")], trail)
    stream.begin(resumed=True, reason="broke")
    stream.take([Delta(0, DeltaKind.TEXT, "two")], trail)
    stream.begin(resumed=False, reason="broke")
    assert stream.text == "one two"
    events = stream.take([Delta(0, DeltaKind.TEXT, "anew")], trail)
    assert isinstance(events[0], Reset)
    assert stream.text == "anew"


def test_assembling_deltas_gives_the_message() -> None:
    message = assemble(
        [
            Delta(0, DeltaKind.REASONING, "hm"),
            Delta(1, DeltaKind.TEXT, "Hel"),
            Delta(1, DeltaKind.TEXT, "lo", opaque_state=b"s"),
            Delta(2, DeltaKind.TOOL_CALL, '{"a"', tool_call_id="1", tool_name="f"),
            Delta(3, DeltaKind.TOOL_CALL, "{}", tool_call_id="2", tool_name="g"),
            Delta(2, DeltaKind.TOOL_CALL, ":1}"),
        ]
    )
    assert message.content == (
        Reasoning("hm"),
        Text("Hello", b"s"),
        ToolCall("1", "f", '{"a":1}'),
        ToolCall("2", "g", "{}"),
    )
