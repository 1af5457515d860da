"""The server of the shared state is killed, frozen and started again; nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from router_server.core.shared import UnreachableError, be_patient_once, patience, patient_for
from router_server.state.opening import open_state
from router_server.state.remote import RedisStore
from tests.state.servers import SharedServer, connected


async def test_killed_and_started_again(server: SharedServer) -> None:
    changed = asyncio.Event()
    async with connected(server.url, changed.set) as store, asyncio.TaskGroup() as group:
        probes = group.create_task(store.run_probes())
        await store.put("a", b"1", 60)
        server.kill()
        with pytest.raises(UnreachableError):
            await store.get("a")
        assert store.degraded
        with pytest.raises(UnreachableError):
            await store.get("a")
        changed.clear()
        server.start()
        await changed.wait()
        assert not store.snapshot.degraded
        assert await store.get("a") is None
        asked = store.snapshot.asked
        assert (asked["get", "error"], asked["get", "skipped"], asked["get", "ok"]) == (1, 1, 1)
        probes.cancel()


async def test_frozen_and_thawed(server: SharedServer) -> None:
    changed = asyncio.Event()
    async with connected(server.url, changed.set) as store, asyncio.TaskGroup() as group:
        probes = group.create_task(store.run_probes())
        await store.put("a", b"1", 60)
        server.freeze()
        for _ in range(3):
            assert not store.degraded
            with pytest.raises(UnreachableError):
                await store.get("a")
        assert store.degraded
        assert store.snapshot.asked["get", "timeout"] == 3
        changed.clear()
        server.thaw()
        await changed.wait()
        assert not store.snapshot.degraded
        assert await store.get("a") == b"1"
        probes.cancel()


async def test_a_call_waits_once_however_often_it_asks(server: SharedServer) -> None:
    async with connected(server.url) as store:
        server.freeze()

        async def call() -> float:
            be_patient_once()
            for _ in range(10):
                with pytest.raises(UnreachableError):
                    await store.get("a")
            return patience().left

        assert await asyncio.create_task(call()) <= 0
        asked = store.snapshot.asked
        assert (asked["get", "timeout"], asked["get", "skipped"]) == (1, 9)


async def test_answers_in_between_keep_it_in_use(server: SharedServer) -> None:
    async with connected(server.url) as store:
        for _ in range(3):
            server.freeze()
            for _ in range(2):
                with pytest.raises(UnreachableError):
                    await store.get("a")
            server.thaw()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await store.get("a")
                    except UnreachableError:
                        continue
                    break
        assert not store.degraded


@asynccontextmanager
async def delayed(server: SharedServer, folder: Path, seconds: float) -> AsyncIterator[str]:
    """Serve what ``server`` serves, so much later, and give the URL."""

    ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
        ends.extend((writer, there))
        while asked := await reader.read(65_536):
            there.write(asked)
            answered = await there_reader.read(65_536)
            await asyncio.sleep(seconds)
            writer.write(answered)

    path = folder / "slow.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield f"unix://{path}"
    for end in ends:
        end.close()
        with suppress(OSError):
            await end.wait_closed()


async def test_answers_that_only_the_background_waits_for_do_not_keep_it_in_use(
    server: SharedServer, folder: Path
) -> None:
    async with delayed(server, folder, 0.2) as url:
        store = RedisStore(url)
        for _ in range(3):
            assert not store.degraded
            with patient_for(20.0):
                assert await store.get("a") is None
            with pytest.raises(UnreachableError):
                await store.get("a")
        assert store.degraded
        await store.close()


async def test_one_that_takes_no_writes_is_of_no_use(server: SharedServer) -> None:
    async with connected(server.url) as store:
        # What Redis says of a script that it cannot run is an error like any other: no exception of its own.
        await store._redis.config_set("maxmemory", "1")
        with pytest.raises(UnreachableError):
            await store.put("a", b"1", 60)
        assert store.degraded
        assert not await store.connect()
        await store._redis.config_set("maxmemory", "0")
        assert await store.connect()
        assert not store.degraded


async def test_a_process_begins_without_it(folder: Path) -> None:
    changes: list[bool] = []
    state = open_state(f"unix://{folder}/nobody", lambda: changes.append(state.degraded))
    await state.connect()
    assert state.degraded
    assert changes == [True]
    assert state.processes == 1
    await state.close()


async def test_without_one_there_is_nothing_to_degrade() -> None:
    state = open_state(None)
    await state.connect()
    await state.run()
    assert not state.distributed
    assert not state.degraded
    assert state.snapshot() is None
    assert state.shared is state.local
    await state.close()


async def test_a_password_is_shown_to_the_server_alone(
    server: SharedServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.lock("very/secret")
    url = server.url.replace("unix://", "unix://:very%2Fsecret@")
    async with connected(url) as store:
        assert await store.put("a", b"1", 60)
        assert "secret" not in f"{store!r} {store.snapshot!r}"
    wrong = open_state(server.url.replace("unix://", "unix://:very%2Fsecret2@"))
    await wrong.connect()
    assert wrong.degraded
    assert "secret" not in caplog.text
    assert "not usable" in caplog.text
    await wrong.close()
