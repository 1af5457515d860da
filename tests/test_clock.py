import asyncio
import time

import pytest

from tests.clock import NothingScheduledError, run_in_virtual_time, virtual_time


@virtual_time
async def test_an_hour_takes_no_time_and_is_an_hour() -> None:
    loop = asyncio.get_running_loop()
    real = time.monotonic()

    await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(1800))

    assert loop.time() == 3600
    assert time.monotonic() - real < 5


@virtual_time
async def test_timers_fire_in_their_order() -> None:
    fired: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_later(2, fired.append, "second")
    loop.call_later(1, fired.append, "first")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await asyncio.Event().wait()

    assert fired == ["first", "second"]


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingScheduledError, match="no timer is set"):
        run_in_virtual_time(forever())


@virtual_time
async def test_fixtures_reach_a_decorated_test(tmp_path: object) -> None:
    await asyncio.sleep(1)
    assert tmp_path is not None
