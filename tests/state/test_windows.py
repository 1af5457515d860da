"""The arithmetic of limits: both implementations against one model, which keeps every single event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from router_server.state.memory import MemoryStore
from router_server.state.store import Argument, Script
from router_server.state.window_steps import RESERVE, SETTLE
from tests.state.servers import shared_server

KEYS = ["requests", "tokens", "places"]
LIMITS = {"requests": 3, "tokens": 100, "places": 2}
START = 1_000_000_000_000


@dataclass
class Model:
    """Every event, as it was counted, and the rules in their plainest words."""

    events: dict[str, list[list[int]]] = field(default_factory=lambda: {"requests": [], "tokens": []})
    leases: dict[str, int] = field(default_factory=dict)

    def counted(self, key: str, now: int) -> list[list[int]]:
        return sorted(
            event for event in self.events[key] if event[1] and event[0] // 1000 >= now // 1000 - 60
        )

    def reserve(self, now: int, lease: str, life: int, tokens: int) -> list[int]:
        asked = {"requests": 1, "tokens": tokens, "places": 1}
        self.leases = {one: end for one, end in self.leases.items() if end > now}
        used = {key: sum(amount for _at, amount in self.counted(key, now)) for key in self.events}
        used["places"] = len(self.leases)
        over = [key for key in KEYS if used[key] + asked[key] > LIMITS[key]]
        waits = {key: self.wait(key, now, used[key] + asked[key] - LIMITS[key]) for key in over}
        if not over:
            for key in self.events:
                self.events[key].append([now, asked[key]])
            self.leases[lease] = now + life
        standings = []
        for key in KEYS:
            left = LIMITS[key] - used[key] - (0 if over else asked[key])
            standings += [max(0, left), self.reset(key, now)]
        refused = max(over, key=lambda key: waits[key]) if over else None
        return [
            KEYS.index(refused) if refused else -1,
            waits[refused] if refused else 0,
            now // 1000,
            *standings,
        ]

    def wait(self, key: str, now: int, excess: int) -> int:
        if key == "places":
            return 1000
        freed = 0
        for at, amount in self.counted(key, now):
            freed += amount
            if freed >= excess:
                return (at // 1000 + 61) * 1000 - now
        raise AssertionError("what is asked is never more than the limit")

    def reset(self, key: str, now: int) -> int:
        counted = [] if key == "places" else self.counted(key, now)
        return (counted[-1][0] // 1000 + 61) * 1000 - now if counted else 0

    def settle(self, now: int, lease: str, second: int, tokens: int, reserved: int, requests: int) -> None:
        self.leases.pop(lease, None)
        for key, more in (("requests", requests - 1), ("tokens", tokens - reserved)):
            if more > 0:
                self.events[key].append([now, more])
            else:
                self.take_back(key, now, second, -more)

    def take_back(self, key: str, now: int, second: int, amount: int) -> None:
        del now
        for event in self.events[key]:
            if event[0] // 1000 == second:
                taken = min(event[1], amount)
                event[1] -= taken
                amount -= taken


class Clocked:
    """The steps on a server whose clock the test sets."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        redis.flushall()

    def run(self, script: Script, now: int, arguments: list[Argument]) -> list[int]:
        clock = f"{{{now // 1000}, {now % 1000 * 1000}}}"
        source = script.source.replace("redis.call('TIME')", clock)
        reply = self._redis.eval(source, len(KEYS), *KEYS, *arguments)
        assert isinstance(reply, list)
        return [int(one) for one in reply]

    def check_ends(self) -> None:
        assert all(self._redis.pttl(name) != -1 for name in self._redis.scan_iter())


class InMemory:
    """The steps in memory, likewise."""

    def __init__(self) -> None:
        self._now = 0
        self._store = MemoryStore(lambda: self._now / 1000)

    def run(self, script: Script, now: int, arguments: list[Argument]) -> list[int]:
        self._now = now
        return [int(one) for one in self._store.run_now(script, KEYS, arguments)]


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as server:
        client = Redis.from_url(server.url)
        yield client
        client.close()


EDGES = st.sampled_from([1, 999, 1_000, 59_000, 59_999, 60_000, 60_001, 60_999, 61_000])
"""Milliseconds around which something begins or ends to count."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 100), st.integers(1, 100_000)),
        st.tuples(st.just("settle"), st.integers(0, 150), st.integers(0, 1)),
        st.tuples(st.just("wait"), EDGES | st.integers(0, 70_000), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_memory_and_redis_do_what_the_model_says(redis: Redis, steps: list[tuple[str, int, int]]) -> None:
    model, remote, memory = Model(), Clocked(redis), InMemory()
    now, open_calls = START, list[tuple[str, int, int]]()
    for number, (what, value, other) in enumerate(steps):
        lease = f"call {number}"
        if what == "wait":
            now += value
        elif what == "reserve":
            asked: list[Argument] = [lease, other]
            for key, amount in (("requests", 1), ("tokens", value), ("places", 1)):
                asked += [key, LIMITS[key], amount]
            expected = model.reserve(now, lease, other, value)
            assert memory.run(RESERVE, now, asked) == expected
            assert remote.run(RESERVE, now, asked) == expected
            if expected[0] < 0:
                open_calls.append((lease, expected[2], value))
        elif open_calls:
            lease, second, reserved = open_calls.pop(0)
            model.settle(now, lease, second, value, reserved, other)
            told: list[Argument] = [
                lease,
                second,
                "requests",
                other - 1,
                "tokens",
                value - reserved,
                "places",
                0,
            ]
            memory.run(SETTLE, now, told)
            remote.run(SETTLE, now, told)
    remote.check_ends()


@settings(max_examples=200, deadline=None)
@given(waits=st.lists(st.tuples(EDGES | st.integers(0, 40_000), st.integers(1, 100)), max_size=60))
def test_never_is_more_than_the_limit_used_in_any_minute(waits: list[tuple[int, int]]) -> None:
    memory, now, used = InMemory(), START, list[tuple[int, int]]()
    for wait, tokens in waits:
        now += wait
        reply = memory.run(
            RESERVE, now, ["a", 1, "requests", 10**6, 1, "tokens", 100, tokens, "places", 10**6, 1]
        )
        if reply[0] < 0:
            used.append((now, tokens))
        else:
            # What refuses says when it would not: then, and not a second before.
            lately = sum(amount for at, amount in used if at > now - 61_000)
            assert lately + tokens > 100
            assert 0 < reply[1] <= 61_000
            now += reply[1]
            again: list[Argument] = ["b", 1, "requests", 10**6, 1, "tokens", 100, tokens, "places", 10**6, 1]
            assert memory.run(RESERVE, now, again)[0] < 0
            used.append((now, tokens))
        assert sum(amount for at, amount in used if at > now - 60_000) <= 100
