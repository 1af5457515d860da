"""A status always fits a trailer, and is cut in a fixed order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import AttemptSummary, Outcome, Phase, Reason, RouterError, Violation
from router_server.core.results import ChatResult, Invocation
from router_server.core.types import ChatRequest, Usage
from router_server.rpc.details import MAX_STATUS_BYTES, rich_status
from tests.rpc.scripted import ScriptedRouter, chat_request, refused, serving, unpacked

texts = st.text(max_size=1_000) | st.integers(1, 3_000).map(lambda n: "ü" * n)
errors = st.builds(
    RouterError,
    st.sampled_from(Reason),
    texts,
    violations=st.lists(st.builds(Violation, texts, texts), max_size=40).map(tuple),
    retry_after=st.none() | st.floats(0, 1e6),
    phase=st.none() | st.sampled_from(Phase),
    attempts=st.lists(
        st.builds(AttemptSummary, texts, texts, st.none() | st.sampled_from(Outcome), error_reason=texts),
        max_size=40,
    ).map(tuple),
    metadata=st.dictionaries(texts, texts, max_size=20),
    usage=st.none() | st.just(Usage(2**62, 2**62)),
)


@given(errors)
def test_a_status_is_at_most_4_kb_and_always_names_its_reason(error: RouterError) -> None:
    status = rich_status(error, code=13, retry_after=error.retry_after, request_id="r" * 128)
    assert status.ByteSize() <= MAX_STATUS_BYTES
    assert status.details[0].TypeName() == "google.rpc.ErrorInfo"


def test_at_most_sixteen_violations_and_eight_attempts_are_told_and_all_attempts_counted() -> None:
    error = RouterError(
        Reason.INVALID_REQUEST,
        "bad",
        violations=tuple(Violation(f"labels[{i}]", "shorten it") for i in range(20)),
        attempts=tuple(AttemptSummary(f"t{i}", "p", Outcome.TIMEOUT) for i in range(12)),
    )
    details = _unpack(rich_status(error, code=3, retry_after=None, request_id=""))
    assert [v.field for v in details["BadRequest"].field_violations] == [f"labels[{i}]" for i in range(16)]
    metadata = details["ErrorInfo"].metadata
    assert metadata["attempts"] == "12"
    assert "attempt.8" in metadata
    assert "attempt.9" not in metadata


def test_violations_give_way_before_attempts_do() -> None:
    error = RouterError(
        Reason.CONTEXT_LENGTH_EXCEEDED,
        "too long",
        violations=tuple(Violation("f" * 250, "d" * 250) for _ in range(16)),
        attempts=tuple(AttemptSummary("t" * 60, "p" * 60, Outcome.CONTEXT_LENGTH) for _ in range(8)),
    )
    details = _unpack(rich_status(error, code=3, retry_after=None, request_id=""))
    assert 0 < len(details["BadRequest"].field_violations) < 16
    assert "attempt.8" in details["ErrorInfo"].metadata


def test_an_attempt_is_always_four_words() -> None:
    attempts = (AttemptSummary("my target", "", None, error_reason="a b"),)
    error = RouterError(Reason.ALL_TARGETS_FAILED, "all failed", attempts=attempts)
    details = _unpack(rich_status(error, code=14, retry_after=None, request_id=""))
    assert details["ErrorInfo"].metadata["attempt.1"] == "mytarget - - ab"


async def test_the_largest_status_arrives_whole() -> None:
    worst = RouterError(
        Reason.INVALID_REQUEST,
        "ü" * 5_000,
        violations=tuple(Violation("ü" * 300, "ü" * 300) for _ in range(16)),
        attempts=tuple(AttemptSummary("ü" * 99, "ü" * 99, Outcome.TIMEOUT) for _ in range(8)),
        metadata={f"{'k' * 90}{i}": "ü" * 900 for i in range(20)},
    )

    async def fail(_request: ChatRequest, _call: Invocation) -> ChatResult:
        raise worst

    async with serving(ScriptedRouter(on_chat=fail)) as it:
        answer = await refused(it.stub.Chat(chat_request(), metadata=(("x-request-id", "r" * 128),)))
    assert answer.reason == Reason.INVALID_REQUEST


def _unpack(status: Any) -> dict[str, Any]:
    return unpacked(status.SerializeToString())
