"""docs/errors.md says what the code does: both tables, row by row, and the metadata's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.rpc import error_details_pb2, status_pb2

import router_server
from router_server.core.errors import (
    RULES,
    AttemptSummary,
    BreakerEffect,
    Cooling,
    NextTarget,
    Outcome,
    Phase,
    Reason,
    RouterError,
    SameTarget,
    Violation,
)
from router_server.core.types import Usage
from router_server.core.verdict import exhausted
from router_server.providers._failure import status_outcome
from router_server.rpc.details import MAX_ATTEMPTS, MAX_STATUS_BYTES, MAX_VIOLATIONS
from router_server.rpc.status import ROWS, Pushback, status_of
from tests.docs.pages import DOCS, table
from tests.e2e.serving import chat, fails, serving

PAGE = DOCS / "errors.md"
FAILURES = table(PAGE, "class")
TOLD = table(PAGE, "reason")

WORDS: dict[object, str] = {
    SameTarget.NO: "no",
    SameTarget.AFTER_BACKOFF: "up to retries times",
    SameTarget.AFTER_COOLING: "after its rest, if nobody else is left",
    NextTarget.NO: "no",
    NextTarget.YES: "yes",
    NextTarget.IF_LARGER: "if its window is larger",
    BreakerEffect.NONE: "-",
    BreakerEffect.FAILURE: "a failure",
    BreakerEffect.TRIP_OR_CHECK: "opens; after a 403 only if the check fails",
    BreakerEffect.CHECK: "a failure if the check fails",
    Cooling.NONE: "-",
    Cooling.UNTIL_PROBE: "until a check",
    Cooling.RETRY_AFTER: "as long as it asks",
    Pushback.ABSENT: "-",
    Pushback.AS_RETRY_INFO: "the same number",
    Pushback.NEVER: "never",
}


def test_every_class_has_the_row_of_its_rule() -> None:
    shown = {
        row["class"]: (row["same target again"], row["next target"], row["breaker"], row["rest"])
        for row in FAILURES
    }
    assert shown == {
        outcome.name: tuple(
            WORDS[v] for v in (rule.same_target, rule.next_target, rule.breaker, rule.cooling)
        )
        for outcome, rule in RULES.items()
        if outcome is not Outcome.OK
    }


def test_every_status_has_the_class_that_the_table_gives_it() -> None:
    named = {
        status: row["class"]
        for row in FAILURES
        for status in re.findall(r"\d(?:\d\d|xx)", row["HTTP status"])
    }
    for status in range(300, 600):
        shown = named.get(str(status)) or named[f"{status // 100}xx"]
        assert status_outcome(status).name == shown, status


def test_every_reason_has_the_row_of_its_status() -> None:
    assert {row["reason"]: (row["code"], row["further details"], row["pushback"]) for row in TOLD} == {
        reason.name: (row.code.name, ", ".join(details_of(reason)), WORDS[row.pushback])
        for reason, row in ROWS.items()
    }


def details_of(reason: Reason) -> list[str]:
    """Name what comes beside the ErrorInfo."""
    error = RouterError(reason, "why", violations=(Violation("field", "what"),), retry_after=1.0)
    return [name for name in map(_name, _told(error).details) if name != "ErrorInfo"]


def test_of_different_failures_the_hopeful_one_decides() -> None:
    (order,) = re.findall(r"the first of these that occurred decides: (.*?)\.", PAGE.read_text(), re.DOTALL)
    groups = [re.findall(r"`(\w+)`", group) for group in order.split(";")]
    ranked = [[Outcome[name] for name in group] for group in groups]
    for i, group in enumerate(ranked):
        expected = {exhausted([(outcome, 1.0)], "messages").reason for outcome in group}
        assert len(expected) == 1
        for worse in (outcome for later in ranked[i + 1 :] for outcome in later):
            mixed = {exhausted([(worse, 1.0), (one, 1.0)], "messages").reason for one in group}
            assert mixed == expected


def test_the_metadata_has_the_keys_of_the_table() -> None:
    attempts = (AttemptSummary("gpt", "openai", Outcome.UNAVAILABLE, error_reason="http_503"),)
    metadata = {"model": "x", "capability": "tools"}
    error = RouterError(
        Reason.DEADLINE_EXCEEDED,
        "late",
        phase=Phase.QUEUE,
        attempts=attempts,
        usage=Usage(1, 2),
        metadata=metadata,
    )
    info = error_details_pb2.ErrorInfo()
    _told(error).details[0].Unpack(info)
    shown = [key for row in table(PAGE, "key") for key in row["key"].split(", ")]
    told = {key.replace("attempt.1", "attempt.N") for key in info.metadata} | set(keys_in_the_code())
    assert told == set(shown)
    assert info.metadata["attempt.1"] == "gpt openai unavailable http_503"


def keys_in_the_code() -> Iterator[str]:
    """Yield the keys that the code gives its errors where it raises them."""
    for path in Path(router_server.__file__).parent.rglob("*.py"):
        for inside in re.findall(r"metadata=\{(.*?)\}[,)]", path.read_text(), re.DOTALL):
            yield from re.findall(r'"(\w+)":', inside)


MOCK = """
providers: {m: {kind: mock}}
targets: {m: {provider: m, model: m}}
routes: {chat: {targets: [m]}}
"""


async def test_the_metadata_that_names_what_was_asked_for() -> None:
    async with serving(MOCK) as served:
        unknown = await fails(served.stub.Chat(chat("nobody")))
        unable = await fails(served.stub.Chat(chat(generation={"seed": 1})))
    assert unknown.metadata == {"model": "nobody"}
    assert unable.metadata == {"capability": "seed"}


def test_the_phases_and_the_limits_are_those_of_the_code() -> None:
    text = PAGE.read_text()
    phases = next(row["value"] for row in table(PAGE, "key") if row["key"] == "phase")
    assert re.findall(r"queue|connect|first_token|stream", phases) == [phase.value for phase in Phase]
    assert f"at most {MAX_VIOLATIONS} field violations and {MAX_ATTEMPTS} attempts" in text
    assert f"until it fits {MAX_STATUS_BYTES // 1024} kB" in text


def _told(error: RouterError) -> Any:
    trailers = dict(status_of(error, request_id="r", remaining=None).trailing_metadata)
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"])


def _name(packed: Any) -> str:
    return str(packed.TypeName()).rpartition(".")[2]
