"""Both stores do the same, and everything they keep has an end."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from router_server.state.memory import MemoryStore
from router_server.state.presence import Presence
from router_server.state.store import Argument, Cells, Reply, Script, Store, key
from tests.state.servers import SharedServer, connected

LASTING = 60.0


def _append(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    value = (cells.get(keys[0]) or b"") + str(arguments[0]).encode()
    cells.put(keys[0], value, LASTING)
    return [len(value), value]


APPEND = Script(
    "append",
    "local length = redis.call('APPEND', KEYS[1], ARGV[1]) "
    "redis.call('PEXPIRE', KEYS[1], 60000) return {length, redis.call('GET', KEYS[1])}",
    _append,
)


async def test_values(store: Store) -> None:
    assert await store.get("a") is None
    assert await store.put("a", b"\x00\xff", LASTING)
    assert not await store.put("a", b"other", LASTING, only_if_absent=True)
    assert await store.put("b", b"", LASTING, only_if_absent=True)
    assert await store.get_all(["b", "none", "a"]) == [b"", None, b"\x00\xff"]
    assert await store.get_all([]) == []
    assert await store.drop("a", "b", "none", "a") == 2
    assert await store.drop() == 0
    assert await store.get("a") is None


async def test_numbers(store: Store) -> None:
    assert await store.add("n", 3, LASTING) == 3
    assert await store.add("n", -5, LASTING) == -2
    assert await store.get("n") == b"-2"


async def test_records(store: Store) -> None:
    assert dict(await store.fields("r")) == {}
    await store.put_fields("r", {"x": b"1", "y": b"2"}, LASTING)
    await store.put_fields("r", {"y": b"3"}, LASTING)
    await store.put_fields("r", {}, LASTING)
    assert dict(await store.fields("r")) == {"x": b"1", "y": b"3"}


async def test_steps(store: Store) -> None:
    assert await store.run(APPEND, ["s"], ["ab"]) == [2, b"ab"]
    assert await store.run(APPEND, ["s"], ["c"]) == [3, b"abc"]


async def test_what_has_ended_is_gone(store: Store) -> None:
    await store.put("a", b"1", 0.001)
    await store.add("n", 1, 0.001)
    await store.put_fields("r", {"x": b"1"}, 0.001)
    for name in ("a", "n"):
        while await store.get(name) is not None:
            pass
    while await store.fields("r"):
        pass
    assert await store.add("n", 1, LASTING) == 1


async def test_everything_on_the_server_has_an_end_and_our_prefix(server: SharedServer) -> None:
    async with connected(server.url) as remote:
        await remote.put(key("f", "a"), b"1", LASTING)
        await remote.add(key("f", "n"), 1, LASTING)
        await remote.put_fields(key("f", "r"), {"x": b"1"}, LASTING)
        await remote.run(APPEND, [key("f", "s")], ["ab"])
        await Presence(remote).say()
    redis = Redis.from_url(server.url)
    names = [name async for name in redis.scan_iter()]
    assert {name.decode() for name in names} == {
        "modelrouter:{state}:probe",
        "modelrouter:{state}:processes",
        *(f"modelrouter:{{f}}:{name}" for name in "anrs"),
    }
    assert all([0 < await redis.pttl(name) <= 60_000 for name in names])
    await redis.aclose()


async def test_a_script_that_the_server_has_forgotten_is_sent_again(server: SharedServer) -> None:
    async with connected(server.url) as remote:
        await remote.run(APPEND, ["s"], ["a"])
        redis = Redis.from_url(server.url)
        await redis.script_flush()
        await redis.aclose()
        assert await remote.run(APPEND, ["s"], ["b"]) == [2, b"ab"]
        assert not remote.degraded


async def test_memory_forgets_what_has_ended() -> None:
    now = 0.0
    store = MemoryStore(lambda: now)
    for number in range(1_000):
        await store.put(f"short {number}", b"", 1.0)
    now = 2.0
    for number in range(200):
        await store.put(f"long {number}", b"", 10.0)
    assert len(store) < 300


async def test_processes_count_each_other_until_they_leave_or_fall_silent(store: Store) -> None:
    one, other = Presence(store), Presence(store)
    await one.say()
    await other.say()
    await one.say()
    assert (one.processes, other.processes) == (2, 2)
    await other.leave()
    await one.say()
    assert one.processes == 1


async def test_a_silent_process_is_gone_after_its_lease() -> None:
    now = 0.0
    store = MemoryStore(lambda: now)
    one, other = Presence(store), Presence(store)
    await other.say()
    now = 14.0
    await one.say()
    assert one.processes == 2
    now = 16.0
    await one.say()
    assert one.processes == 1
