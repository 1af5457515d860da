"""An upstream in a process of its own that is quicker than any reader: ``python -m tests.load.quick``.

The prompt ``KIB kibibytes`` is answered with so many, in events of 8 KiB. Asked ``look``, it tells how many
connections are open and in use, and how many requests came in all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from tests.load.peer import answer_questions
from tests.load.upstreams import Watched
from tests.upstream import LAST_CHUNK, SSE_HEAD, Reply, Request, Step, Upstream, event

PIECE = "x" * 8_192
_ASKED = re.compile(rb"(\d+) kibibytes")


def _piece(delta: dict[str, str], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


_PIECE, _END = _piece({"content": PIECE}), _piece({}, "stop")


def _choose(request: Request) -> Reply:
    found = _ASKED.search(request.body)
    assert found is not None
    count = max(1, int(found[1]) * 1024 // len(PIECE))

    def reply(_request: Request) -> Iterator[Step]:
        yield from SSE_HEAD
        for _ in range(count):
            yield _PIECE
        yield _END
        yield event("[DONE]")
        yield LAST_CHUNK

    return reply


async def main() -> None:
    """Answer until nobody asks any more."""
    async with Upstream() as upstream:
        watched = Watched(upstream, _choose)
        await answer_questions({"url": upstream.base_url}, {"look": watched.look})


if __name__ == "__main__":
    asyncio.run(main())
