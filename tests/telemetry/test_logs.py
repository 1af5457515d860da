from __future__ import annotations

import io
import json
import logging
import os
import pty
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from router_server.core.errors import Outcome, Reason
from router_server.core.observer import Reused, RpcRecord, RpcStart
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.record import replace
from router_server.telemetry import access_log
from router_server.telemetry.access_log import AccessLog, BreakerLog
from router_server.telemetry.logs import Logs, configure
from router_server.telemetry.redaction import register_secret
from tests.telemetry.driver import CHAT, FIRST, METHOD, PROMPT, REPLY, SECOND, answered, call_record, failed

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
log = logging.getLogger("router_server.test")


def fail(message: str) -> None:
    raise RuntimeError(message)


def written(say: Callable[[], object], log_format: Any = "json", level: str = "info") -> str:
    return written_by(lambda _logs: say(), log_format, level)


def written_by(say: Callable[[Logs], object], log_format: Any = "json", level: str = "info") -> str:
    stream = io.StringIO()
    logs = configure(log_format, level, stream)
    try:
        say(logs)
    finally:
        logs.close()
    return stream.getvalue()


def lines(say: Callable[[], object], level: str = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(say, level=level).splitlines()]


def rpc_ended(record: RpcRecord, log_format: Any = "json", level: str = "info") -> str:
    def say(logs: Logs) -> None:
        fan_out_rpc([AccessLog(logs.say)]).rpc(record.start).ended(record)

    return written_by(say, log_format, level)


def access_line(record: RpcRecord) -> dict[str, Any]:
    (line,) = rpc_ended(record).splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_line_is_one_json_object() -> None:
    (line,) = lines(lambda: log.warning("two\nlines of %s", "ünïcode"))

    assert line["message"] == "two\nlines of ünïcode"
    assert line["level"] == "warning"
    assert line["logger"] == "router_server.test"
    assert line["time"].endswith("Z")
    assert datetime.fromisoformat(line["time"]).year > 2000
    assert line.keys() == {"time", "level", "logger", "message"}


def test_levels() -> None:
    def say() -> None:
        log.debug("quiet")
        log.error("loud")

    assert [line["message"] for line in lines(say)] == ["loud"]
    assert [line["message"] for line in lines(say, "debug")] == ["quiet", "loud"]


def test_an_exception_is_part_of_its_line() -> None:
    def say() -> None:
        try:
            fail("Bearer abcdefghijklmnop")
        except RuntimeError:
            log.exception("failed")

    (line,) = lines(say)
    assert line["message"] == "failed"
    assert line["exception"].endswith("RuntimeError: Bearer ***")
    assert line["exception"].startswith("Traceback")


def test_arguments_that_do_not_fit_lose_no_line() -> None:
    (line,) = lines(lambda: log.warning("%d of them", "many"))

    assert line["message"] == "%d of them ('many',)"


def test_a_registered_secret_is_masked_everywhere() -> None:
    secret = "correct-horse-battery"
    register_secret(secret)

    def say() -> None:
        try:
            fail(f"https://host/?q={secret}")
        except RuntimeError:
            log.exception("key %s", secret, extra={"fields": {"peer": secret, "trail": [f"a:{secret}"]}})
        log.warning("stack", stack_info=True)

    assert secret not in written(say)
    assert secret not in written(say, "text")
    assert [line["message"] for line in lines(say)] == ["key ***", "stack"]
    assert lines(say)[0]["trail"] == ["a:***"]


def test_the_access_line_of_a_call_with_a_failover() -> None:
    call = call_record(failed(FIRST), answered(SECOND))
    start = RpcStart(METHOD, "req-1", "ipv4:127.0.0.1:40000")
    line = access_line(RpcRecord(start, "OK", 2.6004, TRACE, "", call))

    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "router_server.access",
        "message": "StreamChat OK",
        "request_id": "req-1",
        "trace_id": TRACE,
        "method": METHOD,
        "code": "OK",
        "duration_ms": 2600.4,
        "peer": "ipv4:127.0.0.1:40000",
        "route": "chat-default",
        "target": "gemini-flash",
        "provider": "google",
        "model": "gemini-2.5-flash",
        "attempts": 2,
        "trail": ["openai-mini:unavailable/http_503", "gemini-flash:ok"],
        "ttft_ms": 800.0,
        "input_tokens": 12,
        "output_tokens": 34,
        "cost_nano_usd": 2_500_000_000,
    }


def test_the_access_line_of_a_call_that_failed() -> None:
    call = call_record(failed(FIRST, Outcome.TIMEOUT))
    start = RpcStart(METHOD, "req-1", "unix:")
    record = RpcRecord(start, "UNAVAILABLE", 0.3, "", Reason.ALL_TARGETS_FAILED, call)
    line = access_line(record)

    assert (line["level"], line["code"], line["reason"]) == ("warning", "UNAVAILABLE", "ALL_TARGETS_FAILED")
    assert (line["target"], line["provider"], line["model"]) == ("openai-mini", "openai", "gpt-4o-mini")
    assert line["trail"] == ["openai-mini:timeout/http_503"]
    assert line.keys().isdisjoint({"ttft_ms", "input_tokens", "trace_id"})


def test_the_access_line_of_an_rpc_that_was_never_routed() -> None:
    start = RpcStart(METHOD, "req-1", "ipv4:1.2.3.4:5")
    line = access_line(RpcRecord(start, "NOT_FOUND", 0.001, TRACE, "MODEL_NOT_FOUND"))

    assert line["level"] == "info"
    assert line["message"] == "StreamChat NOT_FOUND"
    assert line.keys().isdisjoint({"route", "target", "attempts", "trail"})


def test_access_lines_say_nothing_of_contents_and_people() -> None:
    start = RpcStart(METHOD, "req-1", "ipv4:1.2.3.4:5")
    record = RpcRecord(start, "OK", 1.0, TRACE, "", call_record(answered(FIRST)))
    text = rpc_ended(record, level="debug") + rpc_ended(record, "text")

    assert text
    for unsaid in (PROMPT, REPLY, CHAT.user_id, *CHAT.labels.values()):
        assert unsaid not in text


def test_a_full_line_has_every_documented_field() -> None:
    call = call_record(answered(FIRST))
    call = replace(call, start=replace(call.start, arm="control"), reused=Reused.CACHE)
    start = RpcStart(METHOD, "req-1", "peer")
    record = RpcRecord(start, "OK", 1.0, TRACE, "REASON", call, "key/search", {"team": "a"})

    assert tuple(access_log.access_fields(record)) == access_log.FIELDS


def test_a_breaker_that_opens_is_a_warning() -> None:
    def say() -> None:
        observer = fan_out([BreakerLog()])
        observer.breaker_changed("openai-mini", "openai", "closed", "open")
        observer.breaker_changed("openai-mini", "openai", "open", "half_open")

    opened, half = lines(say)
    assert opened["message"] == "The breaker of target openai-mini is open now."
    assert (opened["level"], half["level"]) == ("warning", "info")
    assert (half["before"], half["after"]) == ("open", "half_open")


def test_auto_is_json_where_there_is_no_terminal() -> None:
    text = written(lambda: log.info("hello"), "auto")

    assert json.loads(text)["message"] == "hello"


def test_auto_is_coloured_text_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", encoding="utf-8", closefd=False) as terminal:
            logs = configure("auto", "info", terminal)
            log.error(
                "hello \x1b[2J world", extra={"fields": {"route": "chat", "trail": ["a:timeout", "b:ok"]}}
            )
            logs.close()
        seen = os.read(ours, 10_000).decode()
    finally:
        os.close(theirs)
        os.close(ours)

    assert "\x1b[1;31mERROR" in seen
    assert "hello \\x1b[2J world" in seen
    assert "route=chat trail=a:timeout → b:ok" in seen


def test_long_text_lines_are_not_broken() -> None:
    text = written(lambda: log.info("word " * 60), "text")

    assert len(text.splitlines()) == 1


def test_a_line_names_the_trace_it_was_written_in() -> None:
    from opentelemetry import trace  # noqa: PLC0415 - only here

    context = trace.SpanContext(int(TRACE, 16), 1, is_remote=True)
    with trace.use_span(trace.NonRecordingSpan(context)):
        (line,) = lines(lambda: log.info("inside"))

    assert line["trace_id"] == TRACE


def test_complaints_of_the_telemetry_library_are_seldom() -> None:
    def say() -> None:
        for number in range(100):
            logging.getLogger("opentelemetry.sdk").warning("Queue full, dropping %s.", number)
            log.info("ours")

    seen = [line["message"] for line in lines(say)]
    assert seen.count("ours") == 100
    assert seen.count("Queue full, dropping 0.") == 1
    assert len(seen) == 101


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_written_does_not_end_the_log() -> None:
    def say() -> None:
        log.warning("first", extra={"fields": {"odd": Unspeakable()}})
        log.warning("second", extra={"fields": {"odd": "\ud800", "exact": 0.5}})

    first, second = lines(say)
    assert "RuntimeError" in first["message"]
    assert (second["message"], second["odd"], second["exact"]) == ("second", "\ud800", 0.5)


def test_nothing_is_lost_where_the_log_ends() -> None:
    def say() -> None:
        for number in range(5_000):
            log.info("line %d", number)

    assert [line["message"] for line in lines(say)] == [f"line {number}" for number in range(5_000)]


def test_a_secret_in_an_access_line_is_masked() -> None:
    start = RpcStart(METHOD, "sk-0123456789abcdefghij", "ipv4:1.2.3.4:5")

    assert access_line(RpcRecord(start, "OK", 1.0))["request_id"] == "sk-***"


class StuckStream(io.StringIO):
    """Takes no line before it is let go; tells when it has got the first, and when ``enough``."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.free = threading.Event()
        self.drained = threading.Event()
        self._missing = enough

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.free.wait(30)
        self._missing -= text.count("\n")
        if self._missing == 0:
            self.drained.set()
        return super().write(text)


def test_who_logs_never_waits_for_who_reads_and_losses_are_counted() -> None:
    stream = StuckStream(enough=10_001)
    logs: Logs = configure("json", "info", stream)
    log.info("first")
    assert stream.reached.wait(30)
    for number in range(10_500):
        log.info("line %d", number)
    stream.free.set()
    assert stream.drained.wait(30)
    log.info("last")
    logs.close()

    seen = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert seen[:2] == ["first", "line 0"]
    assert seen[-2:] == ["500 log records were dropped: nobody reads the log fast enough.", "last"]
    assert len(seen) == 1 + 10_000 + 2
