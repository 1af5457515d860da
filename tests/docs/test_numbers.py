"""The numbers in the essays are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router_server.core import breaker, cooldown, deadline, journey, outbox, router, target
from router_server.core.duration import parse_duration
from router_server.rpc import server, settings, status
from tests.docs.pages import DOCS, prose, table

_DEFAULT = re.compile(r"`([a-z_.]+)` \((\d+)( s)?\)")
_BREAKER = breaker.BreakerSettings()
_ROUTER = router.RouterSettings()
_SERVER = settings.ServerSettings()

KEYS = {
    row["key"].rpartition(".")[2]: row["default"]
    for row in table(DOCS / "configuration.md", "key")
    if row["default"] != "null"
}

NUMBERS = [
    ("backpressure", f"{outbox.LIMIT // 1024} KiB, a delta counting {outbox._OVERHEAD} bytes more"),
    ("backpressure", f"takes nothing | {_ROUTER.reader_stall:.0f} s"),
    ("backpressure", f"takes nothing | {_SERVER.write_timeout:.0f} s"),
    (
        "backpressure",
        f"may be {_SERVER.max_receive_bytes >> 20} MiB, an answer {_SERVER.max_send_bytes >> 20} MiB",
    ),
    ("draining", f"{server._LAST_WORDS:.0f} s before the grace ends"),
    ("draining", f"A grace under {2 * server._LAST_WORDS:.0f} s gives its second half"),
    ("errors", f"at most {journey._BACKOFF} s, doubling to {journey._LONGEST_BACKOFF:.0f} s"),
    ("errors", f"{cooldown._FIRST_WAIT:.0f} s, doubling to {cooldown._LONGEST_WAIT:.0f} s"),
    ("errors", f"that comes by itself, at most {cooldown.BENCH_LIMIT:.0f} s"),
    ("errors", f"it ran less than {deadline._FAIR_TRIAL:.0f} s"),
    ("errors", f"where that is over {status._PUSHBACK_CAP:.0f} s"),
    ("failover", f"less {deadline._MARGIN * 100:.0f} % (at most {deadline._MARGIN * 1000:.0f} ms)"),
    (
        "failover",
        f"{_ROUTER.unary_deadline:.0f} s for unary calls and {_ROUTER.stream_deadline:.0f} s for streams",
    ),
    ("failover", f"less than {deadline.MIN_ATTEMPT * 1000:.0f} ms is not begun"),
    ("failover", f"after {_BREAKER.failure_threshold} failures in a row"),
    ("failover", f"at least {_BREAKER.min_calls} calls in {_BREAKER.window:.0f} s"),
    ("failover", f"after {_BREAKER.open:.0f} s (then {_BREAKER.open_max:.0f} s,"),
    ("failover", f"is asked every {target.HealthCheck().interval:.0f} s"),
]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_defaults_in_brackets_are_those_of_the_keys(page: Path) -> None:
    for key, number, unit in _DEFAULT.findall(prose(page)):
        default = KEYS[key.rpartition(".")[2]]
        assert float(number) == (parse_duration(default) if unit else float(default)), key


@pytest.mark.parametrize(("page", "words"), NUMBERS)
def test_a_number_that_is_no_key(page: str, words: str) -> None:
    text = " ".join(prose(DOCS / f"{page}.md").split())
    assert words in text
