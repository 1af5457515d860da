"""The router's core and nothing else, to be counted: calls to a provider that answers from memory.

Listens for lines with how many calls to make, one after the other, and says when they are made:

    python -m bench.core_alone --listen 127.0.0.1:7000 --targets 2
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Final

from bench.simulated import SimulatedProvider, router_over
from router_server.core.provider import UpstreamChat
from router_server.core.results import Invocation
from router_server.core.types import Answer, ChatRequest, FinishReason, Message, Role, Text, Usage
from router_server.loop import new_loop

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


async def serve(host: str, port: int, targets: int) -> None:
    """Make calls when told to, until killed."""
    router, _ = router_over([InstantProvider(_nothing, lambda: 0.0) for _ in range(targets)])

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            for _ in range(int(line)):
                await router.chat(_REQUEST, Invocation("call", 60.0))
            writer.write(b"made\n")
        writer.close()

    server = await asyncio.start_server(told, host, port)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="The core alone.")
    parser.add_argument("--listen", default="127.0.0.1:7000")
    parser.add_argument("--targets", type=int, default=1)
    args = parser.parse_args()
    host, _, port = args.listen.partition(":")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(host, int(port), args.targets))


if __name__ == "__main__":
    main()
