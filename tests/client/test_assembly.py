"""The stream's state machine, against every order of events and against a simple model of what they say."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from modelrouter import FinishReason, MalformedAnswer, StreamInterrupted, ToolCall
from modelrouter.answers import Answer
from modelrouter.assembly import Assembly
from modelrouter.v1 import chat_pb2
from tests.client.scripted import OTHER_ROUTE, ROUTE, USAGE, delta, finished, heartbeat, reset, started

Event = chat_pb2.StreamChatResponse

texts = st.text(max_size=5)
# A part keeps its kind, so its index decides it: 0 text, 1 reasoning, 2 refusal, 3 and 4 tool calls.
deltas = st.one_of(
    st.builds(lambda text: Event(delta={"part_index": 0, "text": text}), texts),
    st.builds(lambda text: Event(delta={"part_index": 1, "reasoning": text}), texts),
    st.builds(lambda text: Event(delta={"part_index": 2, "refusal": text}), texts),
    st.builds(
        lambda index, text: Event(
            delta={"part_index": index, "tool_call": {"arguments_json_fragment": text}}
        ),
        st.sampled_from([3, 4]),
        texts,
    ),
)
resets = st.builds(lambda resumed: reset(resumed=resumed), st.booleans())
middles = st.lists(st.one_of(deltas, st.just(heartbeat()), resets), max_size=20)


def assembled(*events: Event) -> Answer:
    assembly = Assembly()
    for event in events:
        assembly.feed(event)
    return assembly.end()


def kept(events: list[Event]) -> list[chat_pb2.ContentDelta]:
    """Return the deltas that count: those after the last reset that is not resumed."""
    restarts = [at for at, event in enumerate(events) if event.HasField("reset") and not event.reset.resumed]
    since = restarts[-1] + 1 if restarts else 0
    return [event.delta for event in events[since:] if event.HasField("delta")]


@given(middles)
def test_a_whole_stream_says_what_its_deltas_say(middle: list[Event]) -> None:
    answer = assembled(started(), *middle, finished())

    counted = kept(middle)
    assert answer.text == "".join(d.text for d in counted)
    assert answer.reasoning == "".join(d.reasoning for d in counted)
    assert answer.refusal == "".join(d.refusal for d in counted)
    for index, call in zip(
        sorted({d.part_index for d in counted if d.HasField("tool_call")}), answer.tool_calls, strict=True
    ):
        fragments = (d.tool_call.arguments_json_fragment for d in counted if d.part_index == index)
        assert call.arguments_json == "".join(fragments)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage == USAGE


@given(middles)
def test_a_stream_that_stops_anywhere_is_interrupted(middle: list[Event]) -> None:
    with pytest.raises(StreamInterrupted) as caught:
        assembled(started(), *middle)

    assert caught.value.partial == "".join(d.text for d in kept(middle))


@given(st.lists(st.sampled_from(["started", "delta", "reset", "heartbeat", "finished"]), max_size=8))
def test_exactly_the_grammar_is_accepted(kinds: list[str]) -> None:
    events = {
        "started": started(),
        "delta": delta("a"),
        "reset": reset(resumed=False),
        "heartbeat": heartbeat(),
        "finished": finished(),
    }
    in_grammar = (
        kinds[:1] == ["started"]
        and kinds[-1:] == ["finished"]
        and len(kinds) > 1
        and not {"started", "finished"} & set(kinds[1:-1])
    )
    try:
        assembled(*(events[kind] for kind in kinds))
    except (MalformedAnswer, StreamInterrupted):
        assert not in_grammar
    else:
        assert in_grammar


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([delta("a")], "`delta` came before `started`"),
        ([heartbeat()], "`heartbeat` came before `started`"),
        ([started(), started()], "`started` came a second time"),
        ([started(), finished(), delta("a")], "`delta` came after `finished`"),
        ([started(), finished(), finished()], "`finished` came after `finished`"),
        ([started(), finished(), started()], "`started` came after `finished`"),
        ([started(), delta("a"), delta(reasoning="b")], "part 0 turned from text into reasoning"),
    ],
)
def test_a_violation_is_named(events: list[Event], complaint: str) -> None:
    with pytest.raises(MalformedAnswer, match=complaint):
        assembled(*events)


def test_a_restart_may_change_what_a_part_is() -> None:
    answer = assembled(
        started(), delta(reasoning="hm"), reset(resumed=False), delta("Paris"), finished(OTHER_ROUTE)
    )

    assert (answer.text, answer.reasoning) == ("Paris", "")


def test_tool_calls_come_in_fragments_and_interleaved() -> None:
    def fragment(index: int, text: str, **opening: Any) -> Event:
        return Event(delta={"part_index": index, "tool_call": {"arguments_json_fragment": text, **opening}})

    answer = assembled(
        started(),
        fragment(0, '{"ci', id="c1", name="weather"),
        fragment(1, "{", id="c2", name="now"),
        fragment(0, 'ty": "Rome"}'),
        fragment(1, "}"),
        finished(),
    )

    assert answer.tool_calls == (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "now", "{}"))


def test_opaque_state_stays_with_its_part_also_without_content() -> None:
    answer = assembled(
        started(), delta("Par"), delta(opaque_state=b"sealed"), delta("is"), delta("!", index=1), finished()
    )

    first, second = answer.message.content
    assert (first.text, first.opaque_state) == ("Paris", b"sealed")
    assert (second.text, second.opaque_state) == ("!", b"")


def test_logprobs_are_collected_and_forgotten_with_their_text() -> None:
    def scored(text: str) -> Event:
        return delta(text, logprobs=[{"token": text, "logprob": -0.5}])

    answer = assembled(started(), scored("Lo"), reset(resumed=False), scored("Pa"), scored("ris"), finished())

    assert [each.token for each in answer.logprobs] == ["Pa", "ris"]


def test_a_stream_has_begun_once_it_is_started() -> None:
    assembly = Assembly()
    begun = [assembly.begun]

    for event in (started(), delta("a"), finished()):
        assembly.feed(event)
        begun.append(assembly.begun)

    assert begun == [False, True, True, True]


def test_an_event_of_a_later_contract_is_passed_over() -> None:
    unknown = Event.FromString(b"\xfa\x01\x00")

    assert assembled(started(), unknown, delta("a"), unknown, finished()).text == "a"


def test_the_route_is_the_last_that_was_told() -> None:
    assert assembled(started(ROUTE), delta("a"), finished(OTHER_ROUTE)).route == OTHER_ROUTE
