"""An upstream whose tokens come at a pace: ``/paced-20-110/v1/chat/completions`` is 110 tokens, 20 ms apart.

Every token carries the time at which it was due, so that an upstream that falls behind is seen to.
``/work-0.5-4/…`` instead answers like a model that reads prompts: it takes 0.5 ms per KiB of the request
before the first token, and no more than 4 requests at once.

    python -m bench.rig.paced --port 8001
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from typing import Final, cast

import uvloop

from bench.rig import bodies

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END: Final = b"\r\n\r\n"
_ANSWER_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n"
_MODELS: Final = _OK + b'{"object":"list","data":[]}'
_BEFORE, _, _AFTER = bodies.event(" @TIME;").partition(b"TIME")
_FAREWELL: Final = bodies.end_of_stream()
_WORK_TOKENS: Final = 10


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(due: float) -> bytes:
    """Return one token as a chunk, with the moment of ``time.monotonic`` at which it was due, in ns."""
    return _chunk(b"%s%d%s" % (_BEFORE, int(due * 1e9), _AFTER))


class Upstream(asyncio.Protocol):
    """One connection."""

    slots: dict[str, asyncio.Semaphore] = {}  # noqa: RUF012 - one for all connections

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop sending."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        head, end, rest = self._buffer.partition(_HEAD_END)
        if not end:
            return
        length = _LENGTH.search(head + b"\r\n")
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        self._answer(head.split(b" ", 2)[1].decode(), len(rest))

    def _answer(self, path: str, size: int) -> None:
        kind, *numbers = path.split("/")[1].split("-")
        if not path.endswith("/chat/completions"):
            self._transport.write(_MODELS)
        elif kind == "work":
            self._task = self._loop.create_task(self._work(path, size, float(numbers[0]), int(numbers[1])))
        else:
            self._transport.write(_ANSWER_HEAD)
            self._send(float(numbers[0]) / 1_000, int(numbers[1]), time.monotonic())

    def _send(self, pace: float, left: int, due: float) -> None:
        if not left:
            self._transport.write(_chunk(_FAREWELL) + b"0\r\n\r\n")
            return
        self._transport.write(token(due))
        due += pace
        # The loop's clock is the same one, in milliseconds.
        self._timer = self._loop.call_at(due, self._send, pace, left - 1, due)

    async def _work(self, path: str, size: int, milliseconds: float, at_once: int) -> None:
        slots = self.slots.setdefault(path, asyncio.Semaphore(at_once))
        async with slots:
            await asyncio.sleep(milliseconds / 1_000 * size / 1_024)
            self._transport.write(_ANSWER_HEAD + token(time.monotonic()))
            for _ in range(_WORK_TOKENS):
                await asyncio.sleep(0.005)
                self._transport.write(token(time.monotonic()))
        self._transport.write(_chunk(_FAREWELL) + b"0\r\n\r\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4_096)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="An upstream whose tokens come at a pace.")
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
