"""How answers and refusals leave: what is sent, in which order, and how long it may take.

Nothing is sent before the first message, no metadata either: until then a failure is a trailers-only
response, which gRPC clients may retry by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, NoReturn

from grpc import aio

from router_server.core.errors import Reason, RouterError
from router_server.rpc.current import Rpc
from router_server.rpc.metadata import identity, outcome
from router_server.rpc.stall import StalledError, Steps, Watch
from router_server.rpc.status import status_of
from router_server.rpc.writing import Put, Writing

_REFUSAL_TIME: Final = 1.0
"""Seconds for a status to leave.

Where a caller reads nothing, a status waits behind the messages that it did not take, and so would we.
After this the status stays queued in the transport, where the caller finds it if it ever reads on.
"""

Context = aio.ServicerContext[Any, Any]


class Delivery:
    """Sends answers.

    Args:
        write_timeout: seconds that a caller may take to accept one message of a stream.
    """

    def __init__(self, write_timeout: float) -> None:
        self._watch = Watch(write_timeout)

    def sign(self, rpc: Rpc, context: Context) -> None:
        """Set the metadata that leaves with a unary answer, all of it behind the message.

        Initial metadata is a batch of its own in grpc.aio, and a packet: a seventh of what the call costs.
        """
        context.set_trailing_metadata((*identity(rpc), *outcome(rpc)))

    async def send_all(self, rpc: Rpc, context: Context, responses: AsyncGenerator[Any, Put | None]) -> None:
        """Send a stream to its end; whatever happens, ``responses`` is closed before this returns.

        While it waits for the next message, ``responses`` may `Put` one on its way in place of yielding it.

        Raises:
            RouterError: what the stream raised, or STREAM_INTERRUPTED where the caller does not read.
            CancelledError: the caller is gone.
        """
        # A write that fails or is cancelled leaves some 300 bytes of native memory behind, whatever its size:
        # grpc.aio frees a message's envelope on success alone. Shielding writes was tried, and saves a third.
        put: Put | None = None
        try:
            async with aclosing(responses):
                with Steps(self._watch) as steps:
                    async with Writing(context, steps) as writing:
                        while True:
                            response = await responses.asend(put)
                            if put is None:
                                await context.send_initial_metadata(identity(rpc))
                                put = writing.put
                            await writing.write(response)
        except StopAsyncIteration:
            context.set_trailing_metadata(outcome(rpc))
        except aio.InternalError:
            # The transport refuses the message: its caller is gone, and the news is about to arrive here.
            raise asyncio.CancelledError from None
        except StalledError:
            raise RouterError(
                Reason.STREAM_INTERRUPTED,
                f"the caller took no message for {self._watch.limit:g} s; read the stream as it arrives",
            ) from None

    async def refuse(self, rpc: Rpc, context: Context, error: RouterError) -> NoReturn:
        """End the RPC with the status of ``error``.

        Raises:
            AbortError: always, which is how grpc.aio ends an RPC.
            CancelledError: the caller is gone, or does not read.
        """
        status = status_of(error, request_id=rpc.request_id, remaining=context.time_remaining())
        trailers = (*status.trailing_metadata, *identity(rpc), *outcome(rpc))
        # grpc.aio keeps the abort, in a cycle, and so this frame; the error knows all that the call held.
        del error
        try:
            async with asyncio.timeout(_REFUSAL_TIME):
                await context.abort(status.code, status.message, trailers)
        except aio.AbortError:
            raise
        except (TimeoutError, aio.BaseError):
            raise asyncio.CancelledError from None
