"""The router's core and nothing else, to be counted: calls to a provider that answers from memory.

Listens for lines with how many calls to make, one after the other, and says when they are made. ``400`` are
calls of which nobody wants to hear, ``400 observed`` are calls of which one observer hears all there is:

    python -m bench.core_alone --listen 127.0.0.1:7000 --targets 2
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import Final

from bench.simulated import SimulatedProvider, router_over
from router_server.core.observer import (
    AttemptObservation,
    AttemptRecord,
    AttemptStart,
    CallObservation,
    CallRecord,
    CallStart,
    Failover,
)
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


class Listener:
    """An observer, and all that it returns: it hears of each call, each attempt and their ends."""

    headers: Mapping[str, str] = {}

    def call(self, start: CallStart) -> CallObservation:
        """Hear of a call."""
        del start
        return self

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        """Hear of an attempt."""
        del start
        return self

    def failed_over(self, failover: Failover) -> None:
        """Hear of a failover."""

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        """Hear of an end."""

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Hear of a breaker."""


async def _nothing(_call: UpstreamChat) -> None:
    """Wait for nothing."""


async def serve(host: str, port: int, targets: int) -> None:
    """Make calls when told to, until killed."""
    providers = [InstantProvider(_nothing, lambda: 0.0) for _ in range(targets)]
    alone, _ = router_over(providers)
    observed, _ = router_over(providers, observers=[Listener()])

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            calls, _, how = line.partition(b" ")
            router = observed if how else alone
            for _ in range(int(calls)):
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
