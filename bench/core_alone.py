"""The router's core and nothing else: so many calls to a provider that answers from memory.

For counting instructions: ``valgrind --tool=callgrind python -m bench.core_alone 1000``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from bench.simulated import SimulatedProvider, router_over
from router_server.core.provider import UpstreamChat
from router_server.core.results import Invocation
from router_server.core.types import Answer, ChatRequest, FinishReason, Message, Role, Text, Usage

_REQUEST: Final = ChatRequest("chat", (Message(Role.USER, (Text("What is the capital of France?"),)),))
_ANSWER: Final = Answer(Message(Role.ASSISTANT, (Text("Paris."),)), FinishReason.STOP, Usage(20, 2), "m")


class InstantProvider(SimulatedProvider):
    """A provider that has its answer ready."""

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return it."""
        del call
        return _ANSWER


async def _nothing(_call: UpstreamChat) -> None:
    """Wait for nothing."""


async def calls(count: int) -> None:
    """Make so many calls, one after the other."""
    router, _ = router_over([InstantProvider(_nothing, lambda: 0.0)])
    for _ in range(count):
        await router.chat(_REQUEST, Invocation("call", 60.0))


if __name__ == "__main__":
    asyncio.run(calls(int(sys.argv[1])))
