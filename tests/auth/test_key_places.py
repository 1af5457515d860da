"""Keys in a file and in Redis: changed by several at once, seen when they change, kept when they break."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router_server.auth.api_keys import hash_of
from router_server.auth.key_file import KeyFile
from router_server.auth.key_set import Adding, KeysError, Revoking
from router_server.auth.key_store import SharedKeys
from router_server.auth.live_keys import LiveKeys
from router_server.config.callers import KeyConfig
from router_server.core.errors import RouterError
from router_server.state.memory import MemoryStore
from tests.state.servers import SharedServer, connected

Place = KeyFile | SharedKeys


def key(name: str) -> KeyConfig:
    return KeyConfig(name=name, sha256=hash_of(name))


def knows(keys: LiveKeys, name: str) -> bool:
    try:
        keys.find(name)
    except RouterError:
        return False
    return True


@pytest.fixture(params=["file", "memory", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "file":
        yield KeyFile(tmp_path / "keys.yaml")
    elif request.param == "memory":
        yield SharedKeys(MemoryStore())
    else:
        server: SharedServer = request.getfixturevalue("server")
        async with connected(server.url) as store:
            yield SharedKeys(store)


async def test_changes_are_seen_by_who_looks(place: Place) -> None:
    live = LiveKeys((key("fixed"),), [place])
    await live.look()
    assert knows(live, "fixed")
    await place.change(Adding(key("a")))
    await place.change(Adding(key("b")))
    assert not knows(live, "a")
    await live.look()
    assert knows(live, "a")
    assert knows(live, "fixed")
    await place.change(Revoking("a"))
    await live.look()
    assert not knows(live, "a")
    assert knows(live, "b")
    assert [one.name for one in await place.keys()] == ["b"]


async def test_all_of_many_changes_at_once_are_kept(place: Place) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(place.change(Adding(key(f"k{number}"))))
    assert sorted(one.name for one in await place.keys()) == [f"k{number}" for number in range(5)]


async def test_a_change_that_is_refused_changes_nothing(place: Place) -> None:
    await place.change(Adding(key("a")))
    with pytest.raises(KeysError):
        await place.change(Adding(key("a")))
    assert [one.name for one in await place.keys()] == ["a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keys: [{name: a}]", "keys.0.sha256"),
        ("keys: [{name: a, sha256: very-secret}]", "is not a SHA-256"),
        ("keys: {", "is not YAML"),
        ("- a", "restore"),
        (b"\xff\xfe", "is not YAML in UTF-8"),
    ],
)
async def test_a_broken_file_changes_nothing_and_the_log_says_so_once(
    tmp_path: Path, text: str | bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.yaml"
    place = KeyFile(path)
    await place.change(Adding(key("a")))
    live = LiveKeys((), [place])
    await live.look()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with caplog.at_level(logging.ERROR):
        await live.look()
        await live.look()
    (complaint,) = [record.getMessage() for record in caplog.records]
    assert words in complaint
    assert "very-secret" not in complaint
    assert knows(live, "a")
    with pytest.raises(KeysError):
        await place.change(Adding(key("b")))


async def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    await KeyFile(path).change(Adding(key("a")))
    live = LiveKeys((), [KeyFile(path)])
    await live.look()
    path.unlink()
    await live.look()
    assert knows(live, "a")
    with pytest.raises(KeysError, match="its folder cannot be used"):
        await KeyFile(tmp_path / "none" / "keys.yaml").change(Adding(key("a")))


def test_a_new_file_is_for_its_owner_and_an_old_one_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    asyncio.run(KeyFile(path).change(Adding(key("a"))))
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    asyncio.run(KeyFile(path).change(Adding(key("b"))))
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in tmp_path.iterdir()) == [".keys.yaml.lock", "keys.yaml"]


async def test_keys_stay_known_while_redis_is_gone(server: SharedServer) -> None:
    async with connected(server.url) as store:
        place = SharedKeys(store)
        await place.change(Adding(key("a")))
        live = LiveKeys((), [place])
        await live.look()
        server.kill()
        await live.look()
        assert store.degraded
        assert knows(live, "a")
        with pytest.raises(KeysError, match="Redis does not answer"):
            await place.change(Adding(key("b")))


async def test_keys_that_were_written_anew_into_an_emptied_redis_are_seen(server: SharedServer) -> None:
    async with connected(server.url) as store:
        place = SharedKeys(store)
        await place.change(Adding(key("a")))
        live = LiveKeys((), [place])
        await live.look()
        await store._redis.flushall()
        await place.change(Adding(key("b")))
        await live.look()
        assert [knows(live, name) for name in "ab"] == [False, True]


async def test_what_others_left_in_redis_is_named() -> None:
    store = MemoryStore()
    await store.put("modelrouter:{keys}:all", b"no json", 60)
    with pytest.raises(KeysError, match="are not JSON"):
        await SharedKeys(store).keys()
    await store.put("modelrouter:{keys}:all", json.dumps({"keys": [{}]}).encode(), 60)
    with pytest.raises(KeysError, match=r"keys\.0\.name"):
        await SharedKeys(store).keys()
